"""Files of a checkpoint that are hashed while they are written, and again while they are read, by whoever writes or reads them.

A file is hashed in chunks, so that a reader of some of its rows need not read the rest, and a check at start-up can sample it.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from lprl_api.base import Contract, NonNegativeInt
from lprl_api.errors import StorageFullError
from lprl_workload.process.errors import DamagedError
from lprl_workload.process.movement import here
from lprl_workload.process.termination import FULL_ERRNOS

CHUNK_BYTES = 64 * 1024 * 1024
"""Of one hash: 14 TB of files take 14 MB of manifest."""
PIECE_BYTES = 8 * 1024 * 1024
"""Written, read and hashed at a time."""


class FileRecord(Contract):
    """One file of a checkpoint."""

    path: str
    """Relative to the checkpoint (to the folder it was written in, until the manifest is made), with forward slashes."""
    nbytes: NonNegativeInt
    sha256: str
    """Of the whole file; where `chunks` are given, of their hashes joined."""
    chunks: tuple[str, ...] = ()
    """sha256 of every CHUNK_BYTES of a file that is longer. Versions before hashed files whole, whatever their size."""

    def below(self, folder: str) -> "FileRecord":
        """Return the record as seen from the folder above."""
        return self.model_copy(update={"path": f"{folder}/{self.path}"})


class Hashes:
    """The hashes of bytes that come one after the other."""

    def __init__(self) -> None:
        self.nbytes = 0
        self._chunk, self._room = hashlib.sha256(), CHUNK_BYTES
        self._done: list[str] = []

    def update(self, data: memoryview) -> None:
        """Take the next bytes."""
        while len(data):
            if not self._room:
                self._done.append(self._chunk.hexdigest())
                self._chunk, self._room = hashlib.sha256(), CHUNK_BYTES
            piece = data[: min(self._room, PIECE_BYTES)]
            self._chunk.update(piece)
            self._room -= len(piece)
            self.nbytes += len(piece)
            data = data[len(piece) :]
            here.tick()

    def record(self, path: str) -> FileRecord:
        """Return what was hashed, as the file `path`."""
        if not self._done:
            return FileRecord(path=path, nbytes=self.nbytes, sha256=self._chunk.hexdigest())
        chunks = (*self._done, self._chunk.hexdigest())
        return FileRecord(path=path, nbytes=self.nbytes, sha256=joined(chunks), chunks=chunks)


def joined(chunks: Sequence[str]) -> str:
    """Return the hash of a file's chunk hashes."""
    return hashlib.sha256("".join(chunks).encode()).hexdigest()


class PartWriter:
    """A new file that is hashed on the way, as a context manager; `record` is there, and the file durable, when it was left in peace."""

    record: FileRecord

    def __init__(self, path: Path) -> None:
        self._path, self._hashes = path, Hashes()
        self._file = path.open("wb", buffering=0)

    def write(self, data: bytes | memoryview) -> None:
        """Append. Raises StorageFullError."""
        view = memoryview(data).cast("B")
        try:
            while len(view):
                written = self._file.write(view[:PIECE_BYTES]) or 0
                self._hashes.update(view[:written])
                view = view[written:]
        except OSError as error:
            raise _named(error, self._path) from error

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._file:
            if error is None:
                try:
                    os.fsync(self._file.fileno())
                except OSError as late:  # some file systems tell of a full volume only now
                    raise _named(late, self._path) from late
        self.record = self._hashes.record(self._path.name)


def _named(error: OSError, path: Path) -> Exception:
    """Return an error of writing with the file it happened to."""
    if error.errno in FULL_ERRNOS:
        return StorageFullError(f"{path}: no space left", "free space or enlarge the volume")
    return OSError(error.errno, error.strerror, str(path))


def write_part(path: Path, data: bytes) -> FileRecord:
    """Write a small file, durably."""
    with PartWriter(path) as part:
        part.write(data)
    return part.record


def record_of(path: Path, name: str) -> FileRecord:
    """Return the record of a file as it is now, as `name`, and make it durable."""
    hashes = Hashes()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE_BYTES):
            hashes.update(memoryview(piece))
        os.fsync(file.fileno())
    return hashes.record(name)


class PartReader:
    """A recorded file, read: what is handed out comes from chunks whose hash was compared, once. As a context manager."""

    def __init__(self, path: Path, record: FileRecord | None) -> None:
        """`record` None: nothing is known of the file, and nothing compared.

        Raises DamagedError when the file is not there in its size, or, of a long file without chunk hashes, is not what was written.
        """
        self._path, self._compared = path, set[int]()
        try:
            self.size = path.stat().st_size
            if record is not None and self.size != record.nbytes:
                raise DamagedError(f"{path}: {self.size} bytes, {record.nbytes} were written")
            if record is not None and not record.chunks and self.size > CHUNK_BYTES:
                if not intact(path, record):
                    raise DamagedError(f"{path}: its content is not what was written")
                record = None
            self._file = path.open("rb", buffering=0)
        except FileNotFoundError as error:
            raise DamagedError(f"{path}: no such file") from error
        self._hashes = () if record is None else record.chunks or (record.sha256,)

    def __enter__(self) -> "PartReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, offset: int, nbytes: int) -> bytearray:
        """Return bytes from `offset` on. Raises DamagedError when they are not what was written."""
        found = bytearray(nbytes)
        view, at = memoryview(found), 0
        while at < nbytes:
            number, start = divmod(offset + at, CHUNK_BYTES)
            piece = self._piece(number, start, min(nbytes - at, CHUNK_BYTES - start))
            if not len(piece):
                raise DamagedError(f"{self._path}: ends at byte {self.size}, {offset + nbytes} are needed")
            view[at : at + len(piece)] = piece
            at += len(piece)
        return found

    def _piece(self, number: int, start: int, nbytes: int) -> memoryview:
        """Return bytes of one chunk, which is read whole the first time and compared."""
        if not self._hashes or number in self._compared:
            return memoryview(_read(self._file, number * CHUNK_BYTES + start, nbytes))
        chunk = _read(self._file, number * CHUNK_BYTES, CHUNK_BYTES)
        if number >= len(self._hashes) or hashlib.sha256(chunk).hexdigest() != self._hashes[number]:
            raise DamagedError(f"{self._path}: bytes {number * CHUNK_BYTES} and following are not what was written")
        self._compared.add(number)
        return memoryview(chunk)[start : start + nbytes]


def _read(file: object, offset: int, nbytes: int) -> bytearray:
    """Read up to `nbytes` from `offset`."""
    fd = file.fileno()  # type: ignore[attr-defined]
    found = bytearray(min(nbytes, max(0, os.fstat(fd).st_size - offset)))
    view, at = memoryview(found), 0
    while at < len(found):
        count = os.preadv(fd, [view[at : at + PIECE_BYTES]], offset + at)
        if not count:
            break
        at += count
        here.tick()
    return found[:at]


def intact(path: Path, record: FileRecord | None, chunks: Sequence[int] | None = None) -> bool:
    """Return whether a file, of which it is known that it has the recorded size, is what was written; `chunks`: only these of it."""
    if record is None:
        return True
    if not record.chunks:
        return _sha256(path) == record.sha256
    if joined(record.chunks) != record.sha256:
        return False
    with path.open("rb", buffering=0) as file:
        numbers = range(len(record.chunks)) if chunks is None else chunks
        return all(hashlib.sha256(_read(file, n * CHUNK_BYTES, CHUNK_BYTES)).hexdigest() == record.chunks[n] for n in numbers)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            here.tick()
    return digest.hexdigest()
