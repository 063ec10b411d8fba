"""The formulas of int4_group.py as Triton kernels; common_kernels.py says how a program finds its tile, and what the names mean."""

import triton
import triton.language as tl

from lprl_workload.quant.triton.common_kernels import INFINITE, address_of, load_bits, note, place, source_at, widen

# Adding 1.5 * 2^23 rounds to an integer, ties to even, and leaves it in the low bits: 0x4B400000 + q. Eight of those, each shifted by
# four bits more, sum to 0x3F400000 + sum(q << 4j) modulo 2^32; the codes are q + 8, which adds 0x88888888.
ROUNDING = tl.constexpr(12582912.0)
OFFSETS = tl.constexpr(0x49488888)
SEVENTH = tl.constexpr(1.0 / 7.0)
EIGHTH = tl.constexpr(0.125)
LEAST = tl.constexpr(2.0**-126)


@triton.jit
def _int4(weight, stored, CLAMP: tl.constexpr):
    """Codes in the low bits of floats, and values, of groups with BF16 scales."""
    scale = stored.to(tl.float32)
    product = weight * tl.div_rn(1.0, scale)[:, None]
    if CLAMP:
        product = tl.minimum(product, 7.0)
    shifted = product + ROUNDING
    return shifted, ((shifted - ROUNDING) * scale[:, None]).to(tl.bfloat16)


@triton.jit
def _worst(weight, value):
    return tl.max(tl.abs(value.to(tl.float32) - weight), axis=1)


@triton.jit
def _next(stored, STEP: tl.constexpr):
    """The BF16 numbers next to scales."""
    bits = stored.to(tl.int16, bitcast=True).to(tl.int32) + STEP
    return tl.maximum(widen(bits), LEAST).to(tl.bfloat16)


@triton.jit
def _better(weight, other, CLAMP: tl.constexpr, stored, shifted, value, least):
    """What was best so far, or another scale where its largest error is smaller."""
    codes, values = _int4(weight, other, CLAMP)
    error = _worst(weight, values)
    take = error < least
    return (
        tl.where(take, other, stored), tl.where(take[:, None], codes, shifted), tl.where(take[:, None], values, value),
        tl.where(take, error, least),
    )  # fmt: skip


@triton.jit
def _best(weight, stored, most, shifted, value):
    """Of absmax / 7, absmax / 8 and the neighbours of the first, group by group, the first with the smallest largest error."""
    below, above = _next(stored, -1), _next(stored, 1)
    eighth = tl.maximum(widen(most) * EIGHTH, LEAST).to(tl.bfloat16)
    stored, shifted, value, least = _better(weight, eighth, True, stored, shifted, value, _worst(weight, value))
    stored, shifted, value, least = _better(weight, below, False, stored, shifted, value, least)
    stored, shifted, value, _ = _better(weight, above, False, stored, shifted, value, least)
    return stored, shifted, value


@triton.jit
def _store_codes(
    packed, at, start, live, shifted, stored, G: tl.constexpr, GROUPS: tl.constexpr, EVEN: tl.constexpr, ALIGNED: tl.constexpr
):
    g, w, j = tl.arange(0, GROUPS), tl.arange(0, G // 8), tl.arange(0, 8)
    eight = tl.reshape(shifted.to(tl.int32, bitcast=True), (GROUPS, G // 8, 8))
    words = tl.sum(eight << (4 * j)[None, None, :], axis=2) + OFFSETS
    if ALIGNED:
        packed = tl.multiple_of(packed, 16)
    to = packed + start * (G // 8) + g[:, None] * (G // 8) + w[None, :]
    if EVEN:
        tl.store(to, words)
        tl.store(at + start + g, stored)
    else:
        tl.store(to, words, mask=live[:, None])
        tl.store(at + start + g, stored, mask=live)


@triton.jit
def _store_values(to, offsets, live, value, EVEN: tl.constexpr, ALIGNED: tl.constexpr):
    if ALIGNED:
        to = tl.multiple_of(to, 16)
    if EVEN:
        tl.store(to + offsets, value)
    else:
        tl.store(to + offsets, value, mask=live[:, None])


@triton.jit(do_not_specialize=["per", "rows"])
def int4_groups(
    table, owner, per, rows, cols, source, source_step, out, out_step, scales, scales_step, bad, partial, HOW: tl.constexpr,
    GROUPS: tl.constexpr, G: tl.constexpr, SOURCE: tl.constexpr, ALL: tl.constexpr, STATS: tl.constexpr, VALUE: tl.constexpr,
    EVEN: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """GROUPS groups of G weights that lie end to end, whatever rows they are of: a tensor is `rows` of them. ALL: grid `source`."""
    program, tensor, tile, groups, _ = place(table, owner, per, rows, cols, HOW, False)
    start = tile.to(tl.int64) * GROUPS
    g = tl.arange(0, GROUPS)
    live = start + g < groups
    # Two dimensions: neighbouring threads read neighbouring words. Of three the compiler gives each thread of a warp a group of its own.
    offsets = start * G + (g[:, None] * G + tl.arange(0, G)[None, :])
    begin = source_at(address_of(table, tensor, source, source_step, 0, HOW), SOURCE, ALIGNED)
    bits = load_bits(begin + offsets, live[:, None], SOURCE, EVEN)
    most = tl.max(bits & 0x7FFF, axis=1)
    tl.store(bad + tensor, 1, mask=tl.max(most, axis=0) >= INFINITE)
    weight = widen(bits)
    # A product with the inverse instead of a quotient: rounded to BF16 it is the same for every BF16 absmax (tested for all of them).
    stored = tl.maximum(widen(most) * SEVENTH, LEAST).to(tl.bfloat16)
    shifted, value = _int4(weight, stored, False)
    if ALL:
        stored, shifted, value = _best(weight, stored, most, shifted, value)
    address = address_of(table, tensor, out, out_step, 1, HOW)
    if VALUE == 0:
        at = address_of(table, tensor, scales, scales_step, 2, HOW).to(tl.pointer_type(tl.bfloat16))
        _store_codes(address.to(tl.pointer_type(tl.int32)), at, start, live, shifted, stored, G, GROUPS, EVEN, ALIGNED)
    else:
        _store_values(address.to(tl.pointer_type(tl.bfloat16)), offsets, live, value, EVEN, ALIGNED)
    if STATS:
        # In units of the largest weight, so that no fp32 square overflows.
        largest = tl.maximum(widen(tl.max(most, axis=0)), 1e-30)
        inverse = tl.div_rn(1.0, largest)
        note(partial, program, (value.to(tl.float32) - weight) * inverse, weight * inverse, largest)


@triton.jit
def int4_values(packed, scales, out, words, PER_GROUP: tl.constexpr, CHUNK: tl.constexpr):
    """Eight values a word: bf16((nibble - 8) * scale)."""
    word = tl.program_id(0).to(tl.int64) * CHUNK + tl.arange(0, CHUNK)
    inside = word < words
    nibbles = tl.load(packed + word, mask=inside, other=0)
    scale = tl.load(scales + word // PER_GROUP, mask=inside, other=0).to(tl.float32)
    j = tl.arange(0, 8)
    codes = ((nibbles[:, None] >> (4 * j)[None, :]) & 15) - 8
    value = (codes.to(tl.float32) * scale[:, None]).to(tl.bfloat16)
    tl.store(out + word[:, None] * 8 + j[None, :], value, mask=inside[:, None])
