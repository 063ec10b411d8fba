"""manifest.json of a checkpoint: what it is, and the sha256 of every file in it. Written last inside the folder."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lprl_api.base import Contract, NonNegativeInt
from lprl_workload.process.movement import here

MANIFEST = "manifest.json"
CHUNK_BYTES = 4 * 1024 * 1024
HASHING_THREADS = 8
"""Files hashed at a time; hashing releases the interpreter lock, and storage likes several readers."""
MAX_MANIFEST_BYTES = 64 * 1024 * 1024


class FileRecord(Contract):
    """One file of a checkpoint."""

    path: str
    """Relative to the checkpoint, with forward slashes."""
    nbytes: NonNegativeInt
    sha256: str


class Manifest(Contract):
    """Contents of a checkpoint."""

    schema_version: int = 1
    step: NonNegativeInt
    attempt: NonNegativeInt
    files: tuple[FileRecord, ...]


@dataclass(frozen=True, slots=True)
class Damage:
    """Why a checkpoint cannot be used."""

    folder: Path
    reason: str


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            here.tick()
    return digest.hexdigest()


def fsync(path: Path) -> None:
    """Make a file or folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_manifest(folder: Path, step: int, attempt: int) -> Manifest:
    """Hash and fsync every file below `folder`, then write and fsync its manifest."""

    def record(path: Path) -> FileRecord:
        fsync(path)
        return FileRecord(path=path.relative_to(folder).as_posix(), nbytes=path.stat().st_size, sha256=sha256_of(path))

    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        files = tuple(pool.map(record, sorted(p for p in folder.rglob("*") if p.is_file())))
    manifest = Manifest(step=step, attempt=attempt, files=files)
    (folder / MANIFEST).write_text(json.dumps(manifest.document(), indent=1))
    for path in [folder / MANIFEST, *(p for p in folder.rglob("*") if p.is_dir()), folder]:
        fsync(path)
    return manifest


def verify(folder: Path, hashed: bool = True) -> Manifest | Damage:
    """Return the manifest of a complete checkpoint whose every file has the recorded size and hash, else what is wrong with it.

    `hashed` false leaves the hashes out: they take reading everything.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            return Damage(folder, f"{MANIFEST} is larger than {MAX_MANIFEST_BYTES} bytes")
        manifest = Manifest.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        return Damage(folder, f"{MANIFEST}: {error}")
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        wrong = [reason for reason in pool.map(lambda record: _wrong(folder, record, hashed), manifest.files) if reason]
    return Damage(folder, wrong[0]) if wrong else manifest


def _wrong(folder: Path, record: FileRecord, hashed: bool) -> str:
    """Return what is wrong with one file, empty when it is as recorded."""
    file = (folder / record.path).resolve()
    if not file.is_relative_to(folder.resolve()):
        return f"{record.path}: outside the checkpoint"
    if not file.is_file() or file.stat().st_size != record.nbytes:
        return f"{record.path}: missing or not {record.nbytes} bytes"
    return "" if not hashed or sha256_of(file) == record.sha256 else f"{record.path}: content does not have the recorded sha256"
