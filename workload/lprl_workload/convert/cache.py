"""Content-addressed reuse: a finished conversion serves everyone whose source and format are the same, and nobody else.

The key is `lprl_api.model.content_key`. Equal keys mean equal fingerprints; that the weights are equal too is shown by the full
digests in the manifest, which are compared with the source before a conversion is reused.
"""

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from lprl_api.errors import UserError
from lprl_api.model.content_key import content_key
from lprl_api.wire.runconfig import ConvertConfig
from lprl_workload.convert.files import MANIFEST, REPORT
from lprl_workload.convert.manifest import ConversionManifest, FileRecord, SourceRecord, damaged_files, read_manifest
from lprl_workload.convert.shard_report import REPORTS
from lprl_workload.convert.writer import write_atomically
from lprl_workload.folder.model import read_contents

IDENTITY = "conversion.json"
"""In TARGET.partial/reports: the content key of the work that goes on there."""


def partial_of(target: Path) -> Path:
    """Return the folder that work on `target` goes on in."""
    return target.with_name(f"{target.name}.partial")


def check_key(config: ConvertConfig) -> None:
    """Refuse a key of another quantizer: raises UserError when operator and workload are of different versions."""
    expected = content_key(config.fingerprint, config.format)
    if config.content_key != expected:
        raise UserError(
            f"contentKey: got {config.content_key}, this workload makes {expected} for the same fingerprint and format",
            "use an operator and a workload image of the same version",
        )


def find_conversion(target: Path, key: str) -> ConversionManifest | None:
    """Return the manifest of the finished conversion at `target`, None when there is nothing yet.

    Raises UserError when something else is there: a folder without manifest, another conversion, missing or cut files.
    """
    manifest = read_manifest(target)
    if manifest is None:
        if target.is_dir() and any(target.iterdir()):
            # Only what a conversion made may be called removable: anything else may be the user's model.
            remedy = "remove it, or choose another target" if is_ours(target) else "choose another target"
            raise UserError(f"{target}: is there already, without a valid {MANIFEST}", remedy)
        return None
    if manifest.content_key != key:
        raise UserError(f"{target}: holds conversion {manifest.content_key}, wanted {key}", "remove it, or choose another target")
    damaged = damaged_files(target, manifest)
    if damaged:
        raise UserError(f"{target}: {damaged[0]} is missing or cut ({len(damaged)} files in all)", f"remove {target}: it is made again")
    return manifest


def is_ours(folder: Path) -> bool:
    """Return whether a conversion made the folder, so that it may be removed and made again."""
    return (folder / REPORT).is_file() or read_manifest(folder) is not None


def claim(partial: Path, key: str) -> None:
    """Make the working folder, or go on in it.

    Raises UserError when work on another conversion was left there: its shards must not be mixed with ours.
    """
    (partial / REPORTS).mkdir(parents=True, exist_ok=True)
    identity = partial / REPORTS / IDENTITY
    if not identity.exists():
        write_atomically(identity, key.encode(), aside=f".{IDENTITY}.{secrets.token_hex(4)}")  # workers start together
    found = identity.read_text()
    if found != key:
        raise UserError(f"{partial}: unfinished work on conversion {found}, wanted {key}", f"remove {partial}")


def share(names: Sequence[str], index: int, workers: int) -> list[str]:
    """Return the part of worker `index`: names index, index + workers, ... of the sorted names."""
    return sorted(names)[index::workers]


def check_reuse(
    target: Path, source: Path, manifest: ConversionManifest, index: int, workers: int, on_bytes: Callable[[int], None]
) -> None:
    """Compare this worker's share of the source and of the converted files with the manifest's digests.

    Raises UserError when the source's weights are not the ones that were converted, or a converted file rotted.
    """
    if set(read_contents(source).shards) != {record.name for record in manifest.source_shards}:
        raise UserError(f"{source}: its shards are not those {target} was made from", _TOUCH)
    _compare(source, _mine(manifest.source_shards, index, workers), f"is not what {target} was made from", _TOUCH, on_bytes)
    _compare(target, _mine(manifest.files, index, workers), f"does not match {MANIFEST}", f"remove {target}: it is made again", on_bytes)


_TOUCH = "touch the source's files: with a new modification time it gets a conversion of its own"


_Record = TypeVar("_Record", FileRecord, SourceRecord)


def _mine(records: Sequence[_Record], index: int, workers: int) -> list[_Record]:
    by_name = {record.name: record for record in records}
    return [by_name[name] for name in share(list(by_name), index, workers)]


def _compare(folder: Path, records: Sequence[_Record], problem: str, remedy: str, on_bytes: Callable[[int], None]) -> None:
    def check(record: _Record) -> None:
        if not record.matches(folder):
            raise UserError(f"{folder / record.name}: {problem}", remedy)
        on_bytes(record.nbytes)

    # Hashing releases the interpreter lock; two files at a time keep a volume busy.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(check, records))
