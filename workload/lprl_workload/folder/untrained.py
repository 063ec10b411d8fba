"""The note beside a checkpoint's weights on layers that training did not touch (hf/untrained.py)."""

import json
from pathlib import Path

NOTE = "untrained.json"
"""Beside the weights of a checkpoint and of what is made from it; says which layers they are."""


def note(layers: list[int]) -> dict[str, object]:
    """Return the content of NOTE."""
    return {"layers": layers, "what": "multi-token prediction: the source's weights, not trained"}


def untrained_layers(folder: Path) -> tuple[int, ...]:
    """Return the layers that NOTE names in a model folder; none without a note that can be read."""
    try:
        layers = json.loads((folder / NOTE).read_bytes())["layers"]
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return ()
    return tuple(n for n in layers if isinstance(n, int)) if isinstance(layers, list) else ()
