"""Bucket entries and the closing digest as bytes, for transports that carry bytes only. JSON: nothing is unpickled."""

import json
from collections.abc import Sequence

from lprl_workload.data import BucketEntry
from lprl_workload.process.errors import WeightMismatchError

MAX_HEADER_BYTES = 256 * 1024 * 1024
"""More than any bucket's table of entries; bounds what a receiver allocates on a broken header."""


def encode_entries(entries: Sequence[BucketEntry]) -> bytes:
    """Return the table of a bucket as UTF-8 JSON."""
    return json.dumps([[e.name, e.dtype, list(e.shape), e.offset, e.nbytes] for e in entries], separators=(",", ":")).encode()


def decode_entries(raw: bytes) -> tuple[BucketEntry, ...]:
    """Parse what `encode_entries` wrote; raises WeightMismatchError when it is anything else."""
    try:
        rows = json.loads(raw)
        return tuple(
            BucketEntry(str(name), str(dtype), tuple(int(n) for n in shape), int(offset), int(nbytes))
            for name, dtype, shape, offset, nbytes in rows
        )
    except (ValueError, TypeError) as error:
        raise WeightMismatchError(f"bucket header of {len(raw)} bytes cannot be read: {error}") from error
