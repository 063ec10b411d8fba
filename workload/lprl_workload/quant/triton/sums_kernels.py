"""The sums of sync/checksum.py as a Triton kernel."""

import triton
import triton.language as tl

from lprl_workload.quant.triton.common_kernels import FIELDS

FIRST = tl.constexpr(0x9E3779B97F4A7C15 - (1 << 64))
SECOND = tl.constexpr(0xBF58476D1CE4E5B9 - (1 << 64))


@triton.jit
def checksums(table, owner, sums, SIZE: tl.constexpr, CHUNK: tl.constexpr, ALIGNED: tl.constexpr):
    """Sum of bits * weight(position) modulo 2^64 of every run of elements of SIZE bytes, into `sums` (zeros before)."""
    program = tl.program_id(0)
    run = tl.load(owner + program)
    row = table + run * FIELDS
    count = tl.load(row + 4)
    if ALIGNED:
        count = tl.multiple_of(count, 16)
    start = (program - tl.load(row + 5).to(tl.int32)).to(tl.int64) * CHUNK
    if SIZE == 1:
        source = tl.load(row).to(tl.pointer_type(tl.uint8))
    elif SIZE == 2:
        source = tl.load(row).to(tl.pointer_type(tl.int16))
    elif SIZE == 4:
        source = tl.load(row).to(tl.pointer_type(tl.int32))
    else:
        source = tl.load(row).to(tl.pointer_type(tl.int64))
    if ALIGNED:
        source = tl.multiple_of(source, 16)
    element = start + tl.arange(0, CHUNK)
    bits = tl.load(source + element, mask=element < count, other=0).to(tl.int64)
    mixed = (element + tl.load(row + 7)) * FIRST
    mixed = (mixed ^ (mixed >> 29)) * SECOND
    mixed = (mixed ^ (mixed >> 32)) | 1
    tl.atomic_add(sums + tl.load(row + 2), tl.sum(bits * mixed, axis=0))
