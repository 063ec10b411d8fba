"""How weights reach a running SGLang server and how it is known that they arrived: the receiving half of its RolloutEngine.

A bucket goes to every rank of the server as a file in a folder that they share (as a handle where it lies in GPU memory), with a command
for our own loader inside (`inside.py`), which reports by a file beside it. Codes and scales travel, and lie in the server, as the
quantizer made them: nothing is quantised there. Why: docs/adr/0023-weights-of-sglang-go-through-our-own-loader.md.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from lprl_workload.data import Bucket
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.rollout.sglang.control import Control, ControlError
from lprl_workload.rollout.sglang.courier import Courier, Report, anywhere, commonly
from lprl_workload.rollout.sglang.releases import Release
from lprl_workload.sync.buckets import unpack
from lprl_workload.sync.checks import Arrived, Check
from lprl_workload.sync.checksum import checksum

REFUSED = 400


class Weights:
    """The weights of one server: begin -> load* -> end | abort. What it raises says why; then it refuses until an update is complete.

    The server must stand still from begin to end, and while `held` makes a bucket: else a call waits until open requests have ended.
    """

    def __init__(self, control: Control, release: Release, ranks: int = 1, exchange: Path | None = None) -> None:
        """Nothing is asked of the server yet.

        Args:
            control: of the server, whose `--custom-weight-loader` is `inside.LOADER`.
            release: what it can do.
            ranks: of its processes that hold weights.
            exchange: folder that this process and every rank can read and write; default one in shared memory (one host).

        """
        self._control = control
        self._courier = Courier(control, release, ranks, exchange)
        self._version = -1
        self._incoming: int | None = None
        self._broken = ""
        self._known = ""
        """Table of names, dtypes and shapes that were all found in their places once."""
        self._fresh(strong=False)

    def _fresh(self, strong: bool) -> None:
        self._arrived = Arrived(strong=False)  # checksums are taken where the bytes went, not here
        self._strong, self._looks = strong, strong or not self._known
        self._begun = False
        self._taken: set[str] = set()

    @property
    def version(self) -> int:
        """Version of the complete weights served; -1 before the first."""
        return self._version

    def refusal(self) -> Exception | None:
        """Return why nothing can be served now, None when something can."""
        if self._broken:
            return WeightMismatchError(f"the engine cannot serve: {self._broken}")
        if self._incoming is not None:
            return RuntimeError(f"generate between begin_update({self._incoming}) and end_update")
        return RuntimeError("generate before the first weights: push an update") if self._version < 0 else None

    def dropped(self) -> None:
        """Note that the weights went with their memory: they must be pushed again."""
        self._version, self._incoming = -1, None

    def begin(self, version: int, strong: bool = False) -> None:
        """Expect buckets of `version`. Raises WeightMismatchError unless it is newer than what is served."""
        if version <= self._version:
            raise WeightMismatchError(f"update to weight version {version} refused: version {self._version} is being served")
        with suppress(ControlError):
            self._courier.shut()
        self._fresh(strong)
        self._incoming = version

    def load(self, bucket: Bucket) -> None:
        """Take tensors in the served format; the bucket's memory may be reused afterwards.

        Raises WeightMismatchError for what is no bucket, for a tensor that comes twice, and for what the server cannot load.
        """
        with self._breaking():
            self._expecting("load_bucket")
            self._arrived.add(bucket)
            if not self._begun:
                self._courier.open()
                self._courier.command("begin", track=self._looks, restores=self._courier.restores)
                self._begun = True
            for report in self._courier.send("load", bucket, sums=self._strong):
                if report["tensors"] != len(bucket.entries):
                    raise WeightMismatchError(f"{report['tensors']} of {len(bucket.entries)} tensors of a bucket came out of it")
                self._note(report.get("sums", {}))

    def _note(self, sums: dict[str, int]) -> None:
        """Note checksums of what a rank got: all got the same."""
        for name, value in sums.items():
            if name in self._arrived.sums and int(self._arrived.sums[name]) != value:
                raise WeightMismatchError(f"{name}: ranks of the server got different bytes")
            self._arrived.sums[name] = torch.tensor(value)

    def end(self, version: int, check: Check) -> None:
        """Compare what arrived, see that it lies where it belongs, forget the KV cache of before and serve `version`.

        Raises WeightMismatchError: another version was begun, tensors are missing or are not what was sent, the model has no place for
        one, or a parameter was left as it was. Nothing is served then until a complete update succeeds.
        """
        with self._breaking(ends=True):
            self._expecting("end_update", version)
            self._arrived.strong = self._strong
            problem = self._arrived.compare(check)
            misplaced = self._settle() if self._begun else ""
            if not problem and not self._looks and check.table != self._known:
                problem = "names, dtypes or shapes are not those of the update whose tensors were last looked for"
            if problem or misplaced:
                raise WeightMismatchError(problem or misplaced)
            self._serve(version)
            self._known = check.table

    def _settle(self) -> str:
        """End the update inside, and return what is wrong with where tensors lie, in words."""
        reports = self._courier.command("settle", restores=self._courier.restores)
        self._begun = False
        self._courier.shut()
        return _misplaced(reports) if self._looks else ""

    def _serve(self, version: int) -> None:
        try:
            self._control.flush()
        except ControlError as error:
            if error.status != REFUSED:
                raise  # requests that stand still keep their cache; others do not share it: the engine keeps versions apart by extra_key
        self._control.set_version(str(version))
        self._version, self._incoming, self._broken = version, None, ""

    def abort(self, why: str) -> None:
        """Give a begun update up: nothing is served until a later one ends well."""
        if self._incoming is not None:
            self._broken = f"the update to weight version {self._incoming} was given up: {why}"
            self._incoming = None
        with suppress(ControlError, WeightMismatchError):
            if self._begun:
                self._begun = False
                self._courier.command("pack", restores=self._courier.restores)
            self._courier.shut()

    def held(self, bucket_bytes: int) -> Iterator[Bucket]:
        """Yield what the server computes with, in the layout of its ranks, as `load_held` of another server of the same kind takes it.

        Entries are named RANK/PARAMETER.
        """
        if (refusal := self.refusal()) is not None:
            raise refusal
        first, left = 0, 1
        while left:
            self._courier.open("draft")
            bucket, count, left = self._courier.hold(first, bucket_bytes)
            self._courier.shut()
            first += count
            yield bucket

    def load_held(self, bucket: Bucket) -> None:
        """After `begin`: take a bucket that another server of the same kind held."""
        with self._breaking():
            self._expecting("load_held")
            self._courier.open("draft")
            sums = {item.name: int(checksum(item.tensor)) for item in unpack(bucket)}
            for report in self._courier.send("take", bucket):
                if wrong := [name for name, value in report["sums"].items() if value != sums[name]]:
                    raise WeightMismatchError(f"{wrong[0]}: not what the other engine holds")
                self._taken |= report["sums"].keys()

    def end_held(self, version: int) -> None:
        """Serve what was taken as `version`; raises WeightMismatchError unless all of it came."""
        with self._breaking(ends=True):
            self._expecting("end_held", version)
            self._courier.open("draft")
            reports = self._courier.command("took")
            self._courier.shut()
            for rank, report in enumerate(reports):
                if missing := [name for name in report["parameters"] if f"{rank}/{name}" not in self._taken]:
                    raise WeightMismatchError(f"another engine did not hand over {len(missing)} parameters, such as {missing[0]}")
            self._serve(version)

    def close(self) -> None:
        """Remove what was exchanged."""
        self._courier.close()

    def _expecting(self, what: str, version: int | None = None) -> None:
        if self._incoming is None and version is None:
            raise RuntimeError(f"{what} outside begin_update and end_update")
        if version is not None and self._incoming != version:
            raise WeightMismatchError(f"{what}({version}) after begin_update({self._incoming})")

    @contextmanager
    def _breaking(self, ends: bool = False) -> Iterator[None]:
        """What fails in here leaves nothing that could be served; `ends`: and nothing is expected any more."""
        version = self._incoming
        try:
            yield
        except ControlError as error:
            self._broken = f"weight version {version}: {error}"
            if error.status is None:
                raise
            raise WeightMismatchError(self._broken) from error
        except WeightMismatchError as error:
            self._broken = f"weight version {version}: {error}"
            raise WeightMismatchError(self._broken) from error
        finally:
            if ends:
                self._incoming = None


def _misplaced(reports: list[Report]) -> str:
    for names, what in (
        (commonly(reports, "unused"), "tensors were sent for which the served model has no place"),
        (anywhere(reports, "moved"), "tensors are not where they were put any more"),
        (anywhere(reports, "unwritten"), "parameters of the served model were left as they were"),
    ):
        if names:
            return f"{len(names)} {what}, such as {min(names)}"
    return ""
