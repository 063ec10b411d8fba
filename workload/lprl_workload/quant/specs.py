"""What a weight is served as, from its name and shape alone: the sizes of a push are known before a byte is quantised."""

from math import prod

from lprl_api.model.formats import WeightFormat
from lprl_api.model.formats.base import BYTES
from lprl_workload.quant.scheme import module_of

Spec = tuple[str, str, tuple[int, ...]]
"""Name, dtype as safetensors names it, shape."""


def spec_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Return the bytes of a tensor."""
    return BYTES[dtype] * prod(shape)


def served_specs(name: str, shape: tuple[int, ...], fmt: WeightFormat) -> tuple[Spec, ...]:
    """Return the served tensors of weight `name` [N, K] in the order `quantize` returns them."""
    module = module_of(name)
    return tuple((f"{module}.{part.leaf}", part.dtype, part.shape) for part in fmt.parts(*shape))
