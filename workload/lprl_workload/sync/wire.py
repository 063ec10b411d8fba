"""What travels beside the bytes on transports that carry bytes only. JSON: nothing is unpickled."""

import json
from collections.abc import Sequence

from lprl_workload.data import BucketEntry
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.sync.checks import Check
from lprl_workload.sync.routes import Target

MAX_HEADER_BYTES = 256 * 1024 * 1024
"""More than any bucket's table of entries; bounds what a receiver allocates on a broken header."""


def encode_bucket(entries: Sequence[BucketEntry], to: Sequence[Target]) -> bytes:
    """Return whom a bucket is for and its table, UTF-8 JSON."""
    rows = [[e.name, e.dtype, list(e.shape), e.offset, e.nbytes] for e in entries]
    return json.dumps([[[t.engine, t.rank] for t in to], rows], separators=(",", ":")).encode()


def decode_bucket(raw: bytes) -> tuple[tuple[BucketEntry, ...], frozenset[Target]]:
    """Parse what `encode_bucket` wrote; raises WeightMismatchError when it is anything else."""
    try:
        to, rows = json.loads(raw)
        entries = tuple(
            BucketEntry(str(name), str(dtype), tuple(int(n) for n in shape), int(offset), int(nbytes))
            for name, dtype, shape, offset, nbytes in rows
        )
        return entries, frozenset(Target(int(engine), int(rank)) for engine, rank in to)
    except (ValueError, TypeError) as error:
        raise WeightMismatchError(f"bucket header of {len(raw)} bytes cannot be read: {error}") from error


def encode_checks(checks: Sequence[tuple[Sequence[Target], Check]]) -> bytes:
    """Return what every engine rank must have got."""
    rows = [[[[t.engine, t.rank] for t in to], [c.tensors, c.nbytes, c.table, c.checksums]] for to, c in checks]
    return json.dumps(rows, separators=(",", ":")).encode()


def decode_check(raw: bytes, target: Target) -> Check:
    """Return one engine rank's check; raises WeightMismatchError when there is none."""
    try:
        for to, (tensors, nbytes, table, checksums) in json.loads(raw):
            if [target.engine, target.rank] in to:
                return Check(int(tensors), int(nbytes), str(table), checksums)
    except (ValueError, TypeError) as error:
        raise WeightMismatchError(f"end of a weight push, {len(raw)} bytes, cannot be read: {error}") from error
    raise WeightMismatchError(f"the push ended with nothing for engine {target.engine}, rank {target.rank}")
