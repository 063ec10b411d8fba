"""The zoo: model types, what their tiny configuration needs beside small sizes, and what is expected of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Case:
    """One model type."""

    model_type: str
    models: str
    """What people know it as."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the (text) configuration."""
    way: Literal["class", "index"] = "class"
    refused: str = ""
    """Why its experts cannot be quantised, in the words of the refusal; empty where everything can."""


IN_OUT = "experts are stored [experts, in, out]"
ONE_TENSOR = "keeps a layer's experts in one tensor"

CHEAP: tuple[Case, ...] = (
    Case("mistral", "Mistral 7B, Nemo, Small"),
    Case("phi3", "Phi-3, Phi-4"),
    Case("gemma3_text", "Gemma 3, text"),
    Case("mixtral", "Mixtral"),
    Case("glm4_moe", "GLM-4.5, 4.6, 4.7"),
    Case("qwen3_5_moe_text", "Qwen3.5-MoE, text", {"layer_types": ["linear_attention", "full_attention"]}),
    Case("minimax_m2", "MiniMax-M2"),
    Case("gpt_oss", "gpt-oss", refused=IN_OUT),
)
"""A few seconds in all, one of each layout: packed, renamed, split experts, hybrid layers, transposed experts."""
ALL: tuple[Case, ...] = CHEAP
