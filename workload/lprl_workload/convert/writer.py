"""Writes one safetensors file in place: header first, then bytes at their offsets, then fsync and rename."""

import ctypes
import errno
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from blake3 import blake3

from lprl_api.errors import StorageFullError
from lprl_workload.convert.digest import extend_digest
from lprl_workload.io.header import header_of
from lprl_workload.io.sizes import ITEM_BYTES
from lprl_workload.process.movement import here

WRITEBACK_BYTES = 32 << 20
_SYNC_FILE_RANGE_WRITE = 2
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """A tensor to be written; `dtype` is the safetensors name."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    last: bool = False
    """Belongs behind the large tensors: scales, which come bit by bit while the codes are streamed."""

    @property
    def nbytes(self) -> int:
        """Size of the data."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def layout(tensors: Iterable[OutputTensor]) -> tuple[bytes, dict[str, int], int]:
    """Return (header bytes, absolute offset of each tensor, file size).

    Tensors lie in the order given, so that a shard is written, and hashed on the way, from front to back. What is marked `last`
    or has no multiple of 8 bytes follows, wide dtypes first: so every tensor is aligned to its item, without gaps.
    """
    given = list(tensors)
    behind = [tensor for tensor in given if tensor.last or tensor.nbytes % 8]
    behind.sort(key=lambda t: (-ITEM_BYTES[t.dtype], t.name))
    ordered = [tensor for tensor in given if not (tensor.last or tensor.nbytes % 8)] + behind
    raw = header_of(((t.name, t.dtype, t.shape) for t in ordered), {"format": "pt"})
    offsets, start = {}, len(raw)
    for tensor in ordered:
        offsets[tensor.name] = start
        start += tensor.nbytes
    return raw, offsets, start


class ShardWriter:
    """A shard being written beside its final name, as a context manager; nothing appears under `path` before `publish`."""

    def __init__(self, path: Path, tensors: Iterable[OutputTensor]) -> None:
        self.path = path
        self._aside = path.with_name(f".{path.name}.writing")
        header, self._offsets, self.size = layout(tensors)
        self._digest, self._hashed = blake3(), 0
        self._unflushed = 0
        self.fd = os.open(self._aside, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            # Fails now, not in the middle, when the disk is full; keeps the file in few extents.
            os.posix_fallocate(self.fd, 0, self.size)
        except OSError as error:
            os.close(self.fd)
            self._aside.unlink(missing_ok=True)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise StorageFullError(f"{path}: {self.size} bytes do not fit ({error.strerror})") from error
        self.pwrite(header, 0)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self.fd)
        if error is not None:
            self._aside.unlink(missing_ok=True)

    def offset(self, name: str) -> int:
        """Return where tensor `name` starts in the file."""
        return self._offsets[name]

    def pwrite(self, data: bytes | memoryview, position: int) -> None:
        """Write all of `data` at an absolute position."""
        here.tick()
        view = memoryview(data)
        if position == self._hashed:
            self._digest.update(view)
            self._hashed += len(view)
        while view:
            count = os.pwrite(self.fd, view, position)
            view, position = view[count:], position + count
            self._unflushed += count
        if self._unflushed >= WRITEBACK_BYTES:
            self._start_writeback()

    def _start_writeback(self) -> None:
        """Let the disk write while we compute, so that little is left for the fsync at the end; a hint, so errors do not matter."""
        self._unflushed = 0
        if hasattr(_libc, "sync_file_range"):
            _libc.sync_file_range(self.fd, ctypes.c_int64(0), ctypes.c_int64(0), _SYNC_FILE_RANGE_WRITE)

    def publish(self) -> str:
        """Flush to disk, rename to the final name and return the file's digest."""
        extend_digest(self._digest, self.fd, self._hashed)
        os.fsync(self.fd)
        os.rename(self._aside, self.path)
        fsync_folder(self.path.parent)
        return str(self._digest.hexdigest())


def fsync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomically(path: Path, data: bytes, aside: str = "") -> None:
    """Write a small file aside, fsync it and rename it into place; `aside` is a name of its own where others may write the same."""
    written = path.with_name(aside or f".{path.name}.writing")
    with written.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(written, path)
    fsync_folder(path.parent)
