"""What a weight is served as, from its name and shape alone: the sizes of a push are known before a byte is quantised."""

from math import prod

from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_workload.quant.scheme import block_of, served_names

BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1, "I16": 2, "I32": 4, "I64": 8}
"""Bytes of an element, by safetensors' name."""
Spec = tuple[str, str, tuple[int, ...]]
"""Name, dtype as safetensors names it, shape."""


def spec_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Return the bytes of a tensor."""
    return BYTES[dtype] * prod(shape)


def served_specs(name: str, shape: tuple[int, ...], fmt: WeightFormat) -> tuple[Spec, ...]:
    """Return the served tensors of weight `name` [N, K] in the order `quantize` returns them."""
    names = served_names(name, fmt)
    rows, cols = shape
    match fmt:
        case Bf16():
            parts: tuple[tuple[str, tuple[int, ...]], ...] = (("BF16", shape),)
        case Fp8Tensor():
            parts = (("F8_E4M3", shape), ("F32", (1,)))
        case Fp8Block() | Fp8Channel():
            high, wide = block_of(fmt, rows, cols)
            parts = (("F8_E4M3", shape), ("F32", (-(-rows // high), -(-cols // wide))))
        case Int4Group():
            parts = (("I32", (rows, cols // 8)), ("BF16", (rows, cols // fmt.group_size)), ("I64", (2,)))
    return tuple((part, dtype, size) for part, (dtype, size) in zip(names, parts, strict=True))
