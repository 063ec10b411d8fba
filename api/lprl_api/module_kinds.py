"""Kinds of linear modules by their Hugging Face checkpoint names: candidates of quantisation (lprl_workload/quant/select.py chooses)."""

import re
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
_VISION = re.compile(r"(?:^|\.)(?:visual|vision_tower|vision_model|vision_encoder|vit|mm_projector|multi_modal_projector|audio_tower)\.")


def kind_of(name: str) -> Kind | None:
    """Return what kind of linear module checkpoint tensor `name` is the weight of, None when it is not a candidate."""
    if _VISION.search(name):
        return None
    return next((kind for kind, pattern in _KINDS if pattern.match(name)), None)
