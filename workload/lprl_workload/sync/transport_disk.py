"""Push through a folder every engine can read: one safetensors file a bucket, a manifest last, then the folder's name.

ROOT/v00000007/bucket-RANK-NUMBER.safetensors ... manifest.json. A version is written as v00000007.tmp and renamed, so a reader never
sees half of it; older versions are removed once every engine confirmed the new one. An engine that comes back reads the version there is.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from lprl_workload.data import Bucket, NamedTensor
from lprl_workload.io.tensor_file import save_tensors
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.sync.buckets import make_bucket, unpack
from lprl_workload.sync.checks import Check
from lprl_workload.sync.receiver import Receiver
from lprl_workload.sync.routes import Routes, Target

Announce = Callable[[int], Callable[[], None]]
"""Has every engine rank call `receive_from` for a version; what it returns waits for them and raises what they raised."""
MAX_MANIFEST_BYTES = 1 << 30


def version_folder(root: Path, version: int) -> Path:
    """Return the folder of a version."""
    return root / f"v{version:08d}"


class DiskTransport:
    """One rank's end: it writes its own buckets; the first sender writes the manifest and has the engines read."""

    def __init__(self, root: Path, rank: int, routes: Routes, version: int, announce: Announce) -> None:
        """For one push of `version`; `root` is the same folder for every rank and engine."""
        self._root, self._rank, self._routes, self._announce = root, rank, routes, announce
        final = version_folder(root, version)
        self._aside = final.with_name(final.name + ".tmp")
        self._written = 0

    def begin(self, version: int, strong: bool) -> None:
        """Make an empty folder beside the version's own; also the others' leftovers go."""
        for stale in (*self._root.glob("v*.tmp"), version_folder(self._root, version)):
            shutil.rmtree(stale, ignore_errors=True)
        self._aside.mkdir(parents=True)

    def open_round(self) -> None:
        """Nobody has to know."""

    def send(self, bucket: Bucket, to: Sequence[Target]) -> None:
        """Write one bucket."""
        audience = next(n for n, found in enumerate(self._routes.audiences) if found.targets == tuple(to))
        path = self._aside / f"bucket-{self._rank:05d}-{self._written:05d}.safetensors"
        save_tensors({item.name: item.tensor for item in unpack(bucket)}, path, metadata={"audience": str(audience)})
        self._written += 1

    def close_round(self) -> None:
        """Nobody has to know."""

    def commit(self, version: int, checks: Sequence[tuple[Sequence[Target], Check]]) -> None:
        """Name the version, have it read, remove the older ones."""
        final = version_folder(self._root, version)
        files = sorted(path.name for path in self._aside.glob("*.safetensors"))
        told = [
            {
                "targets": [[t.engine, t.rank] for t in targets],
                "alike": audience.layout.alike,
                "check": [check.tensors, check.nbytes, check.table, check.checksums],
            }
            for audience, (targets, check) in zip(self._routes.audiences, checks, strict=True)
        ]
        (self._aside / "manifest.json").write_text(json.dumps({"version": version, "files": files, "audiences": told}))
        self._aside.rename(final)
        self._announce(version)()
        for old in self._root.glob("v*"):
            if old != final:
                shutil.rmtree(old, ignore_errors=True)

    def abort(self, why: str, first: bool) -> None:
        """Remove what was written; engines have not begun yet, or gave up by themselves."""
        for stale in self._root.glob("v*.tmp") if first else ():
            shutil.rmtree(stale, ignore_errors=True)


def receive_from(root: Path, engine: Receiver, version: int, target: Target, device: str = "cpu") -> None:
    """Load one version into an engine rank, one file at a time.

    Raises WeightMismatchError when it is missing, damaged, different, or holds nothing for this engine.
    """
    folder = version_folder(root, version)
    files, audience, check = _manifest(folder, version, target)
    engine.begin_update(version, check.checksums is not None)
    try:
        for name in files:
            items = _read(folder / name, audience, device)
            if items:
                engine.load_bucket(make_bucket(items))
    except Exception as error:
        engine.abort_update(str(error))
        raise
    engine.end_update(version, check)


def _read(path: Path, audience: int, device: str) -> list[NamedTensor]:
    try:
        with safe_open(path, framework="pt", device=device) as file:
            if (file.metadata() or {}).get("audience") != str(audience):
                return []
            return [NamedTensor(name, file.get_tensor(name)) for name in file.keys()]  # noqa: SIM118
    except Exception as error:  # safetensors raises its own type for damage, OSError for absence
        raise WeightMismatchError(f"{path.parent.name}/{path.name}: {error}") from error


def _manifest(folder: Path, version: int, target: Target) -> tuple[list[str], int, Check]:
    """Return the files, which audience's buckets the engine takes, and what they come to."""
    try:
        with (folder / "manifest.json").open() as file:
            found: dict[str, Any] = json.loads(file.read(MAX_MANIFEST_BYTES))
        if found["version"] != version:
            raise ValueError(f"manifest says version {found['version']}")
        audiences = list(enumerate(found["audiences"]))
        listed = [each for each in audiences if [target.engine, target.rank] in each[1]["targets"]]
        # An engine that was not there at the time takes what engines without parts of their own took.
        for number, told in listed or [each for each in audiences if each[1]["alike"]]:
            tensors, nbytes, table, checksums = told["check"]
            return [str(name) for name in found["files"]], number, Check(int(tensors), int(nbytes), str(table), checksums)
        raise ValueError(f"holds nothing for engine {target.engine}, rank {target.rank}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightMismatchError(f"{folder}: no readable weights of version {version}: {error}") from error
