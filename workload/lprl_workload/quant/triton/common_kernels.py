"""What the Triton kernels of `fp8_kernels`, `int4_kernels` and `sums_kernels` have in common.

A program takes one tile of one tensor; HOW it finds it:

    0   `owner` names the tensor of each program, `table` has a row of eight int64 a tensor: 0 source  1 codes or values  2 scales
        3 rows (INT4: groups)  4 columns  5 its first program  6 its programs  7 first position
    1   all tensors are rows x cols and have `per` programs; addresses stand in the table (one load less to wait for before the data)
    2   likewise, and addresses follow from those of the first and steps: nothing is looked up

Bit-equal to the CPU path by construction: every product, quotient and rounding is the same single fp32 operation, so launches must set
enable_fp_fusion=False. Magnitudes of BF16 values are compared as integers, which orders them alike and keeps NaN largest.

SOURCE is what a weight is stored in: 0 bfloat16, 1 float32, 2 float16. VALUE is what is written: 0 codes and scales, 1 the values they
stand for in float32, 2 in bfloat16. EVEN: no tile reaches over an edge. ALIGNED: addresses and columns are multiples of 16.
"""

import triton
import triton.language as tl

FIELDS = tl.constexpr(8)
SUMS = tl.constexpr(2)  # of a program and of a tensor: squared error, squared weight
INFINITE = tl.constexpr(0x7F80)  # BF16 magnitude bits from here on are infinite or NaN


@triton.jit
def place(table, owner, per, rows, cols, HOW: tl.constexpr, ALIGNED: tl.constexpr):
    """Program, its tensor, its tile in it, and the tensor's size."""
    program = tl.program_id(0)
    if HOW == 0:
        tensor = tl.load(owner + program)
        row = table + tensor * FIELDS
        high, wide = tl.load(row + 3).to(tl.int32), tl.load(row + 4).to(tl.int32)
        tile = program - tl.load(row + 5).to(tl.int32)
    else:
        tensor, tile = program // per, program % per
        high, wide = rows, cols
    if ALIGNED:
        wide = tl.multiple_of(wide, 16)
    return program, tensor, tile, high, wide


@triton.jit
def address_of(table, tensor, base, step, FIELD: tl.constexpr, HOW: tl.constexpr):
    """One of a tensor's addresses, by its field in the table."""
    if HOW == 2:
        address = base + tensor.to(tl.int64) * step
    else:
        address = tl.load(table + tensor * FIELDS + FIELD)
    return address


@triton.jit
def source_at(address, SOURCE: tl.constexpr, ALIGNED: tl.constexpr):
    """Pointer to weights."""
    if SOURCE == 0:
        pointer = address.to(tl.pointer_type(tl.int16))
    elif SOURCE == 1:
        pointer = address.to(tl.pointer_type(tl.float32))
    else:
        pointer = address.to(tl.pointer_type(tl.float16))
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit
def load_bits(pointers, inside, SOURCE: tl.constexpr, EVEN: tl.constexpr):
    """BF16 bits of values, in the low half of int32."""
    if EVEN:
        raw = tl.load(pointers)
    else:
        raw = tl.load(pointers, mask=inside, other=0)
    if SOURCE == 0:
        bits = raw
    else:
        bits = raw.to(tl.float32).to(tl.bfloat16).to(tl.int16, bitcast=True)
    return bits.to(tl.int32)


@triton.jit
def widen(bits):
    """Floats of BF16 bits."""
    return (bits << 16).to(tl.float32, bitcast=True)


@triton.jit
def note(partial, program, error, weight, unit):
    """Store a program's sums of squares, of values in units of `unit`: of all at once, which a thread does alone until the end."""
    square = unit.to(tl.float64) * unit.to(tl.float64)
    tl.store(partial + program * SUMS, tl.sum(error * error).to(tl.float64) * square)
    tl.store(partial + program * SUMS + 1, tl.sum(weight * weight).to(tl.float64) * square)


@triton.jit(do_not_specialize=["per"])
def totals(table, partial, out, per, HOW: tl.constexpr, CHUNK: tl.constexpr):
    """The sums of every tensor from those of its programs, always in the same order."""
    tensor = tl.program_id(0)
    if HOW == 0:
        first, count = tl.load(table + tensor * FIELDS + 5), tl.load(table + tensor * FIELDS + 6)
    else:
        first, count = tensor.to(tl.int64) * per, per.to(tl.int64)
    at = tl.arange(0, CHUNK)
    error, weight = tl.zeros([CHUNK], tl.float64), tl.zeros([CHUNK], tl.float64)
    for begin in range(0, count, CHUNK):
        inside = begin + at < count
        sums = partial + (first + begin + at) * SUMS
        error += tl.load(sums, mask=inside, other=0.0)
        weight += tl.load(sums + 1, mask=inside, other=0.0)
    tl.store(out + tensor * SUMS, tl.sum(error, axis=0))
    tl.store(out + tensor * SUMS + 1, tl.sum(weight, axis=0))
