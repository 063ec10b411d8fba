"""The folder in which an engine's process and the ranks of its server leave files for each other: in memory where there is room.

It goes with its owner. What an owner that was killed left there (up to a bucket, in the memory of the host) goes when the next one comes:
a lock tells which folders are in use.
"""

import errno
import fcntl
import logging
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)
SHARED_MEMORY = Path("/dev/shm")
ROOM = 1 << 30
"""Bytes that must be free in shared memory for files to be there; else they are in the temporary folder."""
PREFIX = "lprl-weights-"
LOCK = "lock"


class Exchange:
    """A folder of its own, made when it is first needed."""

    def __init__(self, inside: Path | None = None) -> None:
        """`inside`: a folder that every rank of the server can read and write; default one of this host."""
        self._inside, self._host = inside, _host_folder
        self._folder: Path | None = None
        self._lock: IO[str] | None = None
        self._number = 0

    def new(self, what: str) -> Path:
        """Return the path of a new file."""
        if self._folder is None:
            where = self._inside or self._host()
            sweep(where)
            self._folder, self._lock = _own_folder(where)
        self._number += 1
        return self._folder / f"{what}-{self._number:08d}"

    def write(self, what: str, content: memoryview) -> Path:
        """Return a new file that holds `content`; when the memory for files is full, from here on in the temporary folder."""
        path = self.new(what)
        try:
            _write(path, content)
        except OSError as error:
            path.unlink(missing_ok=True)
            if error.errno != errno.ENOSPC or self._inside is not None or self._host is _temporary:
                raise
            log.warning("%s is full (%d bytes to write); weights go through %s", path.parent.parent, len(content), _temporary())
            self.close()
            self._host = _temporary
            path = self.new(what)
            _write(path, content)
        return path

    def close(self) -> None:
        """Remove the folder."""
        if self._folder is not None and self._lock is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._lock.close()
            self._folder = self._lock = None


def _own_folder(where: Path) -> tuple[Path, IO[str]]:
    """Return a new folder and the lock that says it is in use; another's `sweep` may have been faster than the lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=where))
        lock = (folder / LOCK).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / LOCK).exists():
            return folder, lock
        lock.close()


def sweep(where: Path) -> None:
    """Remove the folders of owners that are gone."""
    for lock in where.glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError), lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)


def _host_folder() -> Path:
    roomy = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free >= ROOM
    return SHARED_MEMORY if roomy else _temporary()


def _temporary() -> Path:
    return Path(tempfile.gettempdir())


def _write(path: Path, content: memoryview) -> None:
    with path.open("wb") as file:
        file.write(content)
