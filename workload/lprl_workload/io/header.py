"""The header of a safetensors file, made from names, dtypes and shapes."""

import json
import math
from collections.abc import Iterable, Mapping

from lprl_workload.io.sizes import ITEM_BYTES


def header_of(tensors: Iterable[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str] | None) -> bytes:
    """Return the first bytes of a safetensors file whose tensors (name, dtype's name, shape) lie in this order, without gaps."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, dtype, shape in tensors:
        end = position + math.prod(shape) * ITEM_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
