"""What a download asks of the place it comes from, and what it tells on the way."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CHUNK_BYTES = 1 << 20
FILES_AT_ONCE = 8
"""One connection seldom fills a line: stores and the Hub give each a share."""


class InterruptedDownload(Exception):
    """A connection broke or the server is busy: time helps. The message says what happened."""


class ChangedDownload(Exception):
    """The remote content is no longer the one that was listed."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One remote file. Digests are of the whole file; those that are None are not known."""

    name: str
    nbytes: int
    version: str
    """Identity of the content (blob id, etag): a file of another version is fetched anew."""
    sha256: str | None = None
    git_sha1: str | None = None
    """sha1 of `blob SIZE NUL content`, as Git names it."""
    md5: str | None = None


class Remote(Protocol):
    """A remote folder. Methods raise UserError for what only the user can mend."""

    @property
    def description(self) -> str:
        """What is downloaded, for messages and download.json."""

    def list(self) -> tuple[RemoteFile, ...]:
        """Return all files of the folder; raises InterruptedDownload where a retry may help."""

    def read(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        """Yield the bytes of `file` from `offset` on; raises InterruptedDownload or ChangedDownload."""


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """Progress of a download, in bytes."""

    file: str
    bytes_done: int
    bytes_total: int
    bytes_skipped: int
    """Part of bytes_done that an earlier run had fetched."""
    elapsed_s: float


OnDownload = Callable[[DownloadProgress], None]


def digests_fit(file: RemoteFile, path: Path) -> bool:
    """Return whether a whole file has every digest that is known of it."""
    wanted = {"sha256": file.sha256, "sha1": file.git_sha1, "md5": file.md5}
    digests = {name: hashlib.new(name, usedforsecurity=False) for name, value in wanted.items() if value is not None}
    if "sha1" in digests:
        digests["sha1"].update(b"blob %d\0" % file.nbytes)
    if digests:
        with path.open("rb") as data:
            while chunk := data.read(CHUNK_BYTES):
                for digest in digests.values():
                    digest.update(chunk)
    return path.stat().st_size == file.nbytes and all(digest.hexdigest() == wanted[name] for name, digest in digests.items())
