"""Push through a folder every engine can read: one safetensors file a bucket, a manifest last, then the folder's name.

ROOT/v00000007/bucket-00000.safetensors ... manifest.json. A version is written as v00000007.tmp and renamed, so a reader
never sees half of it; older versions are removed once every engine confirmed the new one.
"""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from safetensors import safe_open

from lprl_workload.buckets import make_bucket, unpack
from lprl_workload.data import NamedTensor, SyncReport
from lprl_workload.io.tensor_file import save_tensors
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.sync.channel import Outgoing, Receiver

Confirm = Callable[[], None]
MAX_MANIFEST_BYTES = 64 * 1024


def version_folder(root: Path, version: int) -> Path:
    """Return the folder of a version."""
    return root / f"v{version:08d}"


class DiskChannel:
    """The sender. `announce(version)` must make every engine call `receive_from` and return a function that waits for them."""

    def __init__(self, root: Path, bucket_bytes: int, announce: Callable[[int], Confirm]) -> None:
        self._root = root
        self._bucket_bytes = bucket_bytes
        self._announce = announce

    def push(self, tensors: Iterable[NamedTensor], version: int) -> SyncReport:
        """Write one version, have it read, remove the older ones. Raises WeightMismatchError from an engine."""
        out = Outgoing(tensors, self._bucket_bytes)
        final = version_folder(self._root, version)
        aside = final.with_name(final.name + ".tmp")
        for stale in (aside, final):
            shutil.rmtree(stale, ignore_errors=True)
        aside.mkdir(parents=True)
        files = 0
        for number, bucket in enumerate(out.buckets()):
            save_tensors({item.name: item.tensor for item in unpack(bucket)}, aside / f"bucket-{number:05d}.safetensors")
            files = number + 1
        (aside / "manifest.json").write_text(json.dumps({"version": version, "digest": out.digest, "files": files}))
        aside.rename(final)
        self._announce(version)()
        for old in self._root.glob("v*"):
            if old != final:
                shutil.rmtree(old, ignore_errors=True)
        return out.report(version)


def receive_from(root: Path, engine: Receiver, version: int, device: str = "cpu") -> None:
    """Load one version into `engine`, one file at a time. Raises WeightMismatchError when it is missing, damaged or different."""
    folder = version_folder(root, version)
    engine.begin_update(version)
    files, digest = _manifest(folder, version)
    for number in range(files):
        try:
            with safe_open(folder / f"bucket-{number:05d}.safetensors", framework="pt", device=device) as file:
                # keys() is alphabetical; the digest does not depend on the order.
                items = [NamedTensor(name, file.get_tensor(name)) for name in file.keys()]  # noqa: SIM118
        except Exception as error:  # safetensors raises its own type for damage, OSError for absence
            raise WeightMismatchError(f"{folder.name}, bucket {number}: {error}") from error
        engine.load_bucket(make_bucket(items))
    engine.end_update(version, digest)


def _manifest(folder: Path, version: int) -> tuple[int, str]:
    """Return the number of files and the digest."""
    try:
        with (folder / "manifest.json").open() as file:
            found = json.loads(file.read(MAX_MANIFEST_BYTES))
        if found["version"] != version:
            raise ValueError(f"manifest says version {found['version']}")
        return int(found["files"]), str(found["digest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightMismatchError(f"{folder}: no readable weights of version {version}: {error}") from error
