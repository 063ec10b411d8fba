"""Digests of shards: BLAKE3 for what is published, XXH3 for what is only compared with itself.

A converted file's digest stands in its manifest for everyone to check (`b3sum FILE` prints it too). A source's digest answers one
question, whether a folder still holds the bytes that were converted; whoever could forge it can write to the volume anyway (its
identity is part of the fingerprint), so it need not resist an adversary, only accidents: 128 bits of XXH3 (`xxhsum -H2`).

Both are taken while a shard is converted, so their rate is part of the converter's. Measured on one core of a Xeon with
AVX-512: SHA-256 1.4 GB/s, BLAKE3 6 GB/s, XXH3 50 GB/s from cache; the quantizer itself runs at 3 to 6 GB/s.
"""

import mmap
import os
from pathlib import Path
from typing import Protocol

from blake3 import blake3
from typing_extensions import Buffer
from xxhash import xxh3_128

CHUNK_BYTES = 1 << 20


class Digest(Protocol):
    """What both kinds can do."""

    def update(self, data: Buffer, /) -> object:
        """Add bytes."""

    def hexdigest(self) -> str:
        """Return the digest of all bytes so far in hexadecimal."""


def extend_digest(digest: Digest, fd: int, start: int) -> None:
    """Add the bytes of an open file from `start` to its end, read through a mapping by this thread alone."""
    size = os.fstat(fd).st_size
    if start >= size:
        return
    with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
        for first in range(start, size, CHUNK_BYTES):
            digest.update(view[first : first + CHUNK_BYTES])


def digest_file(path: Path) -> str:
    """Return the BLAKE3 digest of a file as 64 hex digits."""
    return _of(path, blake3())


def source_digest(path: Path) -> str:
    """Return the 128-bit XXH3 digest of a file as 32 hex digits."""
    return _of(path, xxh3_128())


def _of(path: Path, digest: Digest) -> str:
    with path.open("rb") as file:
        extend_digest(digest, file.fileno(), 0)
    return digest.hexdigest()
