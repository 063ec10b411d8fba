"""How many weights lie beside a config.json, from the headers of its safetensors files: a few kilobytes of each are read, no tensor."""

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from lprl_api.errors import UserError

PACKED = ".weight_packed"
_BESIDE = re.compile(r"\.(weight_scale(_inv)?|weight_shape|weight_g_idx|weight_zero_point|input_scale|[qkv]_scale|inv_freq)$|rotary_emb\.")
"""What is stored beside weights and is none."""
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_INTEGERS_IN_A_WORD = 8
"""INT4 weights in an element of X.weight_packed."""
_MOST = 100 << 20
"""Bytes a header may have (safetensors' own limit)."""


@dataclass(frozen=True)
class Held:
    """Weights of a folder, by where they belong."""

    model: int
    """All but those of multi-token prediction."""
    further: int
    """Of multi-token prediction layers."""


def held_beside(config: Path, layers: int) -> Held | None:
    """Return the weights beside a config.json, None where there are no files of weights; layers from `layers` on predict further tokens.

    Raises UserError naming a file that is none.
    """
    files = sorted(config.parent.glob("*.safetensors"))
    sizes = {name: size for file in files for name, size in _sizes(file)}
    if not sizes:
        return None
    further = sum(size for name, size in sizes.items() if _is_further(name, layers))
    return Held(sum(sizes.values()) - further, further)


def _is_further(name: str, layers: int) -> bool:
    found = _LAYER.search(name)
    return name.startswith(("mtp.", "model.mtp.")) or (name.startswith("model.layers.") and found is not None and int(found[1]) >= layers)


def _sizes(file: Path) -> Iterator[tuple[str, int]]:
    for name, entry in _header(file).items():
        packed = name.endswith(PACKED)
        if name == "__metadata__" or _BESIDE.search(name) or not (packed or str(entry["dtype"]).startswith(("F", "BF"))):
            continue
        yield name, prod(entry["shape"]) * (_INTEGERS_IN_A_WORD if packed else 1)


def _header(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            found = json.loads(stream.read(size)) if size <= _MOST else None
    except (OSError, struct.error, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(name == "__metadata__" or _is_entry(entry) for name, entry in found.items()):
        raise UserError(f"{file}: no safetensors file", "complete the download, or move what is no weight of this model away")
    return found


def _is_entry(entry: object) -> bool:
    """Return whether a header says dtype and shape of a tensor: a text, and a list of natural numbers."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str) or not isinstance(entry.get("shape"), list):
        return False
    return all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in entry["shape"])
