"""manifest.json of a checkpoint: what it is, and the hashes of every file in it. Written last inside the folder.

Whoever wrote a file hashed it on the way; the manifest is put together from what they say, and nothing is read again for it.
"""

import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Literal

from lprl_api.base import Contract, NonNegativeInt
from lprl_api.model.model_shape import ModelShape
from lprl_workload.io import parts
from lprl_workload.io.parts import FileRecord, intact

MANIFEST = "manifest.json"
HASHING_THREADS = 8
"""Files hashed at a time; hashing releases the interpreter lock, and storage likes several readers."""
MAX_MANIFEST_BYTES = 64 * 1024 * 1024
SMALL_BYTES = 1024 * 1024
"""Files up to this size are always hashed: states, configurations, random generators."""
SAMPLE_BYTES = 1024 * 1024 * 1024
"""Of the larger ones, so much is hashed at start-up: about a second. What is loaded is hashed as it is read anyway."""

How = Literal["sizes", "sampled", "full"]
"""What is compared: that files are there in their sizes; the hashes of some chunks as well; of everything."""


class Manifest(Contract):
    """Contents of a checkpoint."""

    schema_version: int = 2
    """1 had neither chunks nor a source."""
    step: NonNegativeInt
    attempt: NonNegativeInt
    source: str = ""
    """Folder of the model that is trained, as the run saw it; versions before did not say."""
    shape: ModelShape | None = None
    """Of that model."""
    files: tuple[FileRecord, ...]

    def below(self, folder: str) -> tuple[FileRecord, ...]:
        """Return the records of the files in a folder, as seen from there."""
        prefix = f"{folder}/"
        found = (r for r in self.files if r.path.startswith(prefix))
        return tuple(r.model_copy(update={"path": r.path.removeprefix(prefix)}) for r in found)


@dataclass(frozen=True, slots=True)
class Damage:
    """Why a checkpoint cannot be used."""

    folder: Path
    reason: str


def fsync(path: Path) -> None:
    """Make a file or folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of `folder`, whose files are durable, and make it and all folders durable.

    Raises RuntimeError unless the files there are exactly those of the manifest, in their sizes.
    """
    found = {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    recorded = {record.path: record.nbytes for record in manifest.files}
    if found != recorded:
        name = min(name for name in found.keys() | recorded.keys() if found.get(name) != recorded.get(name))
        raise RuntimeError(f"{folder / name}: {found.get(name)} bytes there, {recorded.get(name)} were written")
    (folder / MANIFEST).write_text(json.dumps(manifest.document(), indent=1))
    for path in [folder / MANIFEST, *(p for p in folder.rglob("*") if p.is_dir()), folder]:
        fsync(path)


def verify(folder: Path, how: How = "full") -> Manifest | Damage:
    """Return the manifest of a complete checkpoint that is as recorded, as far as `how` says, else what is wrong with it.

    Raises OSError when the volume does not say: that is no damage, and goes by.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            return Damage(folder, f"{MANIFEST} is larger than {MAX_MANIFEST_BYTES} bytes")
        manifest = Manifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValueError) as error:
        return Damage(folder, f"{MANIFEST}: {error}")
    wrong = next((reason for record in manifest.files if (reason := _misplaced(folder, record))), "")
    if not wrong and how != "sizes":
        chosen = sampled(manifest.files, SAMPLE_BYTES) if how == "sampled" else {record.path: None for record in manifest.files}
        with ThreadPoolExecutor(HASHING_THREADS) as pool:
            hashed = [record for record in manifest.files if record.path in chosen]
            verdicts = pool.map(lambda record: intact(folder / record.path, record, chosen[record.path]), hashed)
            spoilt = [record.path for record, good in zip(hashed, verdicts, strict=True) if not good]
        wrong = f"{spoilt[0]}: content does not have the recorded sha256" if spoilt else ""
    return Damage(folder, wrong) if wrong else manifest


def _misplaced(folder: Path, record: FileRecord) -> str:
    """Return what is wrong with a file's place, size or record, empty when nothing is. Raises OSError."""
    file = (folder / record.path).resolve()
    if not file.is_relative_to(folder.resolve()):
        return f"{record.path}: outside the checkpoint"
    if record.chunks and len(record.chunks) != -(-record.nbytes // parts.CHUNK_BYTES):
        return f"{record.path}: {len(record.chunks)} hashes for {record.nbytes} bytes"
    try:
        found = file.stat()  # is_file() takes any error for an absent file
    except FileNotFoundError:
        return f"{record.path}: missing"
    return "" if S_ISREG(found.st_mode) and found.st_size == record.nbytes else f"{record.path}: not {record.nbytes} bytes"


def sampled(files: Iterable[FileRecord], budget: int) -> dict[str, Sequence[int] | None]:
    """Return which chunks of which files are hashed at start-up (None: the whole file): small files, and `budget` bytes of the others.

    Chunks are chosen evenly over all files. A long file without chunk hashes (of an earlier version) is left to its reader, unless
    everything fits the budget.
    """
    given = list(files)
    large = [record for record in given if record.nbytes > SMALL_BYTES]
    if sum(record.nbytes for record in large) <= budget:
        return {record.path: None for record in given}
    chosen: dict[str, Sequence[int] | None] = {record.path: None for record in given if record.nbytes <= SMALL_BYTES}
    each = [(record, n) for record in large if record.chunks or record.nbytes <= parts.CHUNK_BYTES for n in range(len(record.chunks) or 1)]
    count = min(len(each), max(1, budget // parts.CHUNK_BYTES))
    picked: dict[str, list[int]] = {}
    for place in range(count):
        record, number = each[place * (len(each) - 1) // max(1, count - 1)]
        picked.setdefault(record.path, []).append(number)
    for record in large:
        if record.path in picked:
            chosen[record.path] = picked[record.path] if record.chunks else None
    return chosen
