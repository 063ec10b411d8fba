"""The formulas of fp8_block.py as Triton kernels; common_kernels.py says how a program finds its tile, and what the names mean."""

import triton
import triton.language as tl

from lprl_workload.quant.triton.common_kernels import FIELDS, INFINITE, SUMS, address_of, load_bits, note, place, source_at, widen

E4M3_MAX = tl.constexpr(448.0)
FP32_MAX = tl.constexpr(3.4028234663852886e38)


@triton.jit
def _qscale(most, POW2: tl.constexpr):
    qscale = tl.div_rn(E4M3_MAX, widen(most))
    qscale = tl.where(most == 0, 1.0, tl.minimum(qscale, FP32_MAX))
    if POW2:
        qscale = (qscale.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
    return qscale


@triton.jit
def _store(address, start, offsets, inside, codes, values, VALUE: tl.constexpr, EVEN: tl.constexpr, ALIGNED: tl.constexpr):
    """Write FP8 codes, or what they stand for."""
    if VALUE == 0:
        pointer = address.to(tl.pointer_type(tl.float8e4nv))
        out = codes
    elif VALUE == 1:
        pointer = address.to(tl.pointer_type(tl.float32))
        out = values
    else:
        pointer = address.to(tl.pointer_type(tl.bfloat16))
        out = values.to(tl.bfloat16)
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    if EVEN:
        tl.store(pointer + start + offsets, out)
    else:
        tl.store(pointer + start + offsets, out, mask=inside)


@triton.jit(do_not_specialize=["per", "rows"])
def fp8_tiles(
    table, owner, per, rows, cols, source, source_step, out, out_step, scales, scales_step, given, bad, partial, HOW: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, SOURCE: tl.constexpr, POW2: tl.constexpr, GIVEN: tl.constexpr, STATS: tl.constexpr,
    VALUE: tl.constexpr, EVEN: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """One rectangle BM x BN: its own scale, or (GIVEN) the one that follows from the tensor's absmax bits in `given`."""
    program, tensor, tile, high, wide = place(table, owner, per, rows, cols, HOW, ALIGNED)
    across = tl.cdiv(wide, BN)
    top, left = tile // across * BM, tile % across * BN
    r, c = tl.arange(0, BM), tl.arange(0, BN)
    start = top.to(tl.int64) * wide + left
    if ALIGNED:
        start = tl.multiple_of(start, 16)
    offsets = r[:, None] * wide + c[None, :]
    inside = (top + r[:, None] < high) & (left + c[None, :] < wide)
    address = address_of(table, tensor, source, source_step, 0, HOW)
    bits = load_bits(source_at(address, SOURCE, ALIGNED) + start + offsets, inside, SOURCE, EVEN)
    if GIVEN:
        most = tl.load(given + tensor)
    else:
        most = tl.max(bits & 0x7FFF)
    tl.store(bad + tensor, 1, mask=most >= INFINITE)
    qscale = _qscale(most, POW2)
    scale = tl.div_rn(1.0, qscale)
    product = widen(bits) * qscale
    codes = product.to(tl.float8e4nv)
    address = address_of(table, tensor, out, out_step, 1, HOW)
    _store(address, start, offsets, inside, codes, codes.to(tl.float32) * scale, VALUE, EVEN, ALIGNED)
    if VALUE == 0:
        stored = address_of(table, tensor, scales, scales_step, 2, HOW).to(tl.pointer_type(tl.float32))
        if GIVEN:
            tl.store(stored, scale, mask=tile == 0)
        else:
            tl.store(stored + tile, scale)
    if STATS:
        # In units of the scale, so that no fp32 square overflows.
        note(partial, program, codes.to(tl.float32) - product, product, scale)


@triton.jit(do_not_specialize=["per", "rows"])
def fp8_rows(
    table, owner, per, rows, cols, source, source_step, out, out_step, scales, scales_step, bad, partial, HOW: tl.constexpr,
    ROWS: tl.constexpr, CHUNK: tl.constexpr, SOURCE: tl.constexpr, POW2: tl.constexpr, STATS: tl.constexpr, VALUE: tl.constexpr,
    ALIGNED: tl.constexpr,
):  # fmt: skip
    """ROWS rows with a scale each, read twice (the second time from the cache)."""
    program, tensor, tile, high, wide = place(table, owner, per, rows, cols, HOW, ALIGNED)
    top, r, c = tile * ROWS, tl.arange(0, ROWS), tl.arange(0, CHUNK)
    start = top.to(tl.int64) * wide
    if ALIGNED:
        start = tl.multiple_of(start, 16)
    begin = source_at(address_of(table, tensor, source, source_step, 0, HOW), SOURCE, ALIGNED) + start
    to = address_of(table, tensor, out, out_step, 1, HOW)
    live = top + r < high
    most = tl.zeros([ROWS], tl.int32)
    for left in range(0, wide, CHUNK):
        inside = live[:, None] & (left + c[None, :] < wide)
        bits = load_bits(begin + r[:, None] * wide + left + c[None, :], inside, SOURCE, False)
        most = tl.maximum(most, tl.max(bits & 0x7FFF, axis=1))
    tl.store(bad + tensor, 1, mask=tl.max(most, axis=0) >= INFINITE)
    qscale = _qscale(most, POW2)
    scale = tl.div_rn(tl.full([ROWS], 1.0, tl.float32), qscale)
    if VALUE == 0:
        stored = address_of(table, tensor, scales, scales_step, 2, HOW).to(tl.pointer_type(tl.float32))
        tl.store(stored + top + r, scale, mask=live)
    errors, weights = tl.zeros([ROWS], tl.float32), tl.zeros([ROWS], tl.float32)
    for left in range(0, wide, CHUNK):
        inside = live[:, None] & (left + c[None, :] < wide)
        offsets = r[:, None] * wide + left + c[None, :]
        product = widen(load_bits(begin + offsets, inside, SOURCE, False)) * qscale[:, None]
        codes = product.to(tl.float8e4nv)
        _store(to, start, offsets, inside, codes, codes.to(tl.float32) * scale[:, None], VALUE, False, ALIGNED)
        if STATS:
            error = codes.to(tl.float32) - product
            errors += tl.sum(error * error, axis=1)
            weights += tl.sum(product * product, axis=1)
    if STATS:
        unit = scale.to(tl.float64) * scale.to(tl.float64)
        tl.store(partial + program * SUMS, tl.sum(errors.to(tl.float64) * unit, axis=0))
        tl.store(partial + program * SUMS + 1, tl.sum(weights.to(tl.float64) * unit, axis=0))


@triton.jit
def absmax_chunks(table, owner, given, CHUNK: tl.constexpr, SOURCE: tl.constexpr, ALIGNED: tl.constexpr):
    """The largest magnitude of every tensor, as BF16 bits, into `given` (zeros before)."""
    program = tl.program_id(0)
    tensor = tl.load(owner + program)
    row = table + tensor * FIELDS
    count = tl.load(row + 3) * tl.load(row + 4)
    if ALIGNED:
        count = tl.multiple_of(count, 16)
    start = (program - tl.load(row + 5).to(tl.int32)).to(tl.int64) * CHUNK
    inside = start + tl.arange(0, CHUNK) < count
    bits = load_bits(source_at(tl.load(row), SOURCE, ALIGNED) + start + tl.arange(0, CHUNK), inside, SOURCE, False)
    tl.atomic_max(given + tensor, tl.max(bits & 0x7FFF, axis=0))
