"""Which models without a table are trained by their class: those that were proven (proven.py), and what of their configuration is not."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from lprl_api.model.hf_config import FAMILIES
from lprl_api.model.proven import PROVEN

LONGEST = ("longrope", "su")
"""Rotary tables that go by the longest sequence of a batch: a row would depend on its neighbours."""
_ROPE = ("rope_parameters", "rope_scaling")
AMONG_IMAGES = "vision"
"""Of `use_bidirectional_attention`: tokens of an image see each other, and there are none in texts (what published Gemma 4 say)."""


def trained_by_class(config: Mapping[str, Any]) -> bool:
    """Return whether the model of a parsed config.json is of a proven family; of one that is a part of another, the whole counts."""
    return config.get("model_type") in PROVEN


def trained_types() -> str:
    """Return all model types that are trained, for messages: those with a table, then the proven ones."""
    return ", ".join((*FAMILIES, *PROVEN))


def proven_type(architecture: str) -> str | None:
    """Return the model_type of a class, or of a config.json that names none; None where it is no proven one."""
    known = _known(architecture)
    return next((model_type for model_type, name in PROVEN.items() if known in (_known(model_type), _known(name))), None)


def is_proven(architecture: str) -> bool:
    """Return whether a class, or the model_type of a config.json that names none, is a proven one."""
    return proven_type(architecture) is not None


def _known(name: str) -> str:
    # Publishers and transformers write some classes differently: KimiK25..., Kimi_K25...
    return name.replace("_", "").lower()


def unproven_keys(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the language model's configuration of a proven family says that was not proven, as `key: what it says; what fits`."""
    for key in _ROPE:
        for name, kind in _rope_types(config.get(key), key):
            if kind in LONGEST:
                yield f"{name}: got {kind!r}; needs a rotary table that is the same for every sequence"
    both_ways = config.get("use_bidirectional_attention")
    if both_ways and both_ways != AMONG_IMAGES:
        yield f"use_bidirectional_attention: got {json.dumps(both_ways)[:40]}; needs false: responses are made token by token"


def _rope_types(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield (key, type of rotary table) of a rotary configuration, or of one for each kind of layer."""
    if not isinstance(value, Mapping):
        return
    found = "rope_type" if "rope_type" in value else "type"
    if found in value:
        yield f"{key}.{found}", value[found]
    for name, inner in value.items():
        yield from _rope_types(inner, f"{key}.{name}")
