"""manifest.json of a converted folder: what it was made from and the BLAKE3 digest of every file. Written last: no manifest, no use."""

from pathlib import Path

from pydantic import Field, ValidationError

from lprl_api.base import Contract, NonNegativeInt
from lprl_api.model.formats import WeightFormat
from lprl_workload.convert.digest import digest_file, source_digest
from lprl_workload.convert.files import MANIFEST, REPORT
from lprl_workload.convert.writer import write_atomically

MAX_MANIFEST_BYTES = 64 * 1024 * 1024


class FileRecord(Contract):
    """One file: its name inside the folder, size in bytes and digest."""

    name: str
    nbytes: NonNegativeInt
    blake3: str = Field(pattern=r"^[0-9a-f]{64}$")

    def matches(self, folder: Path) -> bool:
        """Return whether the file is in `folder` with these bytes; reads all of it."""
        path = folder / self.name
        return path.is_file() and path.stat().st_size == self.nbytes and digest_file(path) == self.blake3


class SourceRecord(Contract):
    """One shard of the source: its name, size in bytes and XXH3 digest (convert/digest.py says why not BLAKE3)."""

    name: str
    nbytes: NonNegativeInt
    xxh128: str = Field(pattern=r"^[0-9a-f]{32}$")

    def matches(self, folder: Path) -> bool:
        """Return whether the shard is in `folder` with these bytes; reads all of it."""
        path = folder / self.name
        return path.is_file() and path.stat().st_size == self.nbytes and source_digest(path) == self.xxh128


class ConversionManifest(Contract):
    """Everything that makes a converted folder trustworthy."""

    schema_version: int = 1
    content_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the source; cheap, so checked on every use."""
    format: WeightFormat
    quantizer_version: str
    source_shards: tuple[SourceRecord, ...]
    """Full digests of the source's shards, taken while they were converted; checked when the conversion is reused."""
    files: tuple[FileRecord, ...]
    """Every file of the folder but this one, sorted by name."""


def write_manifest(folder: Path, manifest: ConversionManifest) -> None:
    """Write manifest.json aside, flush it, rename it into place and flush the folder."""
    write_atomically(folder / MANIFEST, manifest.model_dump_json(by_alias=True, indent=1).encode())


def read_manifest(folder: Path) -> ConversionManifest | None:
    """Return the manifest of a folder; None when there is none, or none that this version reads."""
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            return None
        return ConversionManifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def manifest_problem(folder: Path) -> str | None:
    """Return why a folder without a valid manifest cannot be trusted; None for one that no conversion made."""
    if (folder / MANIFEST).exists():
        return f"{MANIFEST}: cannot be read as one, so no digest was compared"
    if (folder / REPORT).exists():
        return f"{MANIFEST}: missing, though {REPORT} says that a conversion made this folder"
    return None


def damaged_files(folder: Path, manifest: ConversionManifest) -> list[str]:
    """Return the recorded files that are missing or of another size (digests are not read)."""
    found = []
    for record in manifest.files:
        path = folder / record.name
        if not path.is_file() or path.stat().st_size != record.nbytes:
            found.append(record.name)
    return found
