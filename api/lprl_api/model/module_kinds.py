"""Kinds of linear modules by their Hugging Face checkpoint names: candidates of quantisation (selection.py chooses)."""

import re
from collections.abc import Iterable
from typing import Literal

Kind = Literal["routed", "shared", "mlp", "attention"]

_LAYER = r"^(?:.+\.)?layers\.\d+\."
_MLP = r"(?:gate|up|down)_proj\.weight$"
_KINDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("routed", re.compile(_LAYER + r"mlp\.experts\.(?:\d+\." + _MLP + r"|gate_up_proj$|down_proj$)")),
    ("shared", re.compile(_LAYER + r"mlp\.shared_experts?\." + _MLP)),
    ("mlp", re.compile(_LAYER + r"mlp\." + _MLP)),
    (
        "attention",
        re.compile(_LAYER + r"self_attn\.(?:[qkvo]|q_a|q_b|kv_b)_proj\.weight$|" + _LAYER + r"self_attn\.kv_a_proj_with_mqa\.weight$"),
    ),
)
_EMBEDDING = "embed_tokens.weight"


def text_prefix(names: Iterable[str]) -> str | None:
    """Return the prefix of the text model among checkpoint tensors, `model.` or `language_model.model.`: that of its embed_tokens.

    Of several embeddings (a speech decoder's, a multi-token-prediction layer's) the one with the most tensors in layers beside it
    counts. None without any, as for a part of a checkpoint.
    """
    known = list(names)
    found = {name.removesuffix(_EMBEDDING) for name in known if name.endswith(_EMBEDDING)}
    layers = {prefix: f"{prefix}layers." for prefix in found if not prefix or prefix.endswith(".")}
    counts = {prefix: sum(name.startswith(below) for name in known) for prefix, below in layers.items()}
    return min(counts, key=lambda prefix: (-counts[prefix], len(prefix), prefix), default=None)


def kind_of(name: str, prefix: str | None = None) -> Kind | None:
    """Return what kind of linear module checkpoint tensor `name` is the weight of, None when it is not a candidate.

    With `prefix` (of `text_prefix`) only the layers of the text model are candidates: no tower's. Without, names alone decide.
    """
    if prefix is not None and not name.startswith(f"{prefix}layers."):
        return None
    return next((kind for kind, pattern in _KINDS if pattern.match(name)), None)
