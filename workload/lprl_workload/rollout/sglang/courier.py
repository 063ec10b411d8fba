"""Commands for our own loader inside every rank of a server, buckets that go with them, and what the ranks report."""

import base64
import io
import json
import pickle
from collections.abc import Sequence
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Literal

import torch
import torch.multiprocessing

from lprl_workload.data import Bucket, BucketEntry
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.rollout.sglang.control import Control
from lprl_workload.rollout.sglang.exchange import Exchange
from lprl_workload.rollout.sglang.inside import LOADER
from lprl_workload.rollout.sglang.releases import Release
from lprl_workload.sync.cuda_ipc import share

Report = dict[str, Any]


class Courier:
    """Speaks to the loader in each of a server's ranks."""

    def __init__(self, control: Control, release: Release, ranks: int, exchange: Path | None) -> None:
        """Nothing is asked of the server yet; see Weights for the arguments."""
        self._control, self._release, self._ranks = control, release, ranks
        self._exchange = Exchange(exchange)
        self._session = ""

    @property
    def restores(self) -> bool:
        """Whether our loader has to undo and redo the packing of weights, because the server has no sessions for it."""
        return not self._release.sessions

    def open(self, selector: Literal["all", "draft"] = "all") -> None:
        """Open an update session; `draft` (there is no draft model) is one in which nothing is packed or unpacked."""
        if self._session != selector:
            self.shut()
            if self._release.sessions:
                self._control.begin_session(selector)
            self._session = selector

    def shut(self) -> None:
        """Close the session there is."""
        if self._session:
            self._session = ""
            if self._release.sessions:
                self._control.end_session()

    def forget(self) -> None:
        """Note that there is no session: the server lost it."""
        self._session = ""

    def command(self, op: str, **told: Any) -> list[Report]:
        """Have every rank do something; returns their reports by rank. Raises WeightMismatchError where one failed or is silent."""
        reply = self._exchange.new("reply")
        header = json.dumps({"op": op, "reply": str(reply), **told}, separators=(",", ":"))
        buffer = io.BytesIO()
        # An empty tensor crosses processes without shared memory or file descriptors, and no pickle of ours can fail to be read.
        ForkingPickler(buffer).dump([(header, torch.empty(0))])
        payload = base64.b64encode(buffer.getvalue()).decode()
        target = {"selector": "target"} if self._release.sessions else {"disable_draft_model": True}
        self._control.update_tensors([payload] * self._ranks, LOADER, **target)
        reports = [self._report(reply.with_name(f"{reply.name}.{rank}")) for rank in range(self._ranks)]
        if errors := [f"rank {n}: {report['error']}" for n, report in enumerate(reports) if "error" in report]:
            raise WeightMismatchError(f"SGLang could not {op} weights: {errors[0]}")
        return reports

    def _report(self, path: Path) -> Report:
        try:
            found: Report = json.loads(path.read_text())
        except OSError as error:
            raise WeightMismatchError(f"a rank of SGLang did not report ({path.name}): does it see {path.parent}?") from error
        path.unlink()
        return found

    def send(self, op: str, bucket: Bucket, **told: Any) -> list[Report]:
        """Have every rank do something with a bucket, whose memory may be reused afterwards."""
        if bucket.data.is_cuda:
            # A copy: memory that came by a handle cannot be handed on by one. It lives until every rank has answered.
            own = Bucket(bucket.entries, bucket.data.clone())
            torch.cuda.current_stream(own.data.device).synchronize()
            # A handle each: torch counts the references of every one.
            handles = [base64.b64encode(pickle.dumps(share(own))).decode() for _ in range(self._ranks)]
            return self.command(op, handles=handles, **told)
        file = self._exchange.write("bucket", bucket.data.numpy().data)
        try:
            entries = [[e.name, e.dtype, list(e.shape), e.offset, e.nbytes] for e in bucket.entries]
            return self.command(op, file=str(file), nbytes=bucket.data.numel(), entries=entries, **told)
        finally:
            file.unlink(missing_ok=True)

    def hold(self, first: int, nbytes: int) -> tuple[Bucket, int, int]:
        """Return parameters of every rank from number `first` on as they lie there, how many of a rank, and how many are left."""
        file = self._exchange.new("held")
        reports = self.command("hold", file=str(file), first=first, nbytes=nbytes)
        entries: list[BucketEntry] = []
        parts: list[torch.Tensor] = []
        end = 0
        for rank, report in enumerate(reports):
            path = file.with_name(f"{file.name}.{rank}")
            raw = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
            path.unlink()
            entries += [BucketEntry(f"{rank}/{n}", d, tuple(shape), end + at, size) for n, d, shape, at, size in report["entries"]]
            parts.append(raw)
            end += raw.numel()
        count = min(len(report["entries"]) for report in reports)
        return Bucket(tuple(entries), torch.cat(parts)), count, max(report["left"] for report in reports)

    def close(self) -> None:
        """Remove what was exchanged."""
        self._exchange.close()


def commonly(reports: Sequence[Report], key: str) -> set[str]:
    """Return the names that every rank reports."""
    return set.intersection(*(set(report[key]) for report in reports))


def anywhere(reports: Sequence[Report], key: str) -> set[str]:
    """Return the names that any rank reports."""
    return {name for report in reports for name in report[key]}
