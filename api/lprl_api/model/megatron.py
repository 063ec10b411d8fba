"""Families that are built by their class and that the Megatron trainer cuts over ranks, too; why it refuses others.

The trainer's tables are its own (workload, train/megatron/families); a test holds these lists against them and against megatron-core.
"""

from collections.abc import Mapping

STAGED: frozenset[str] = frozenset({"glm4_moe", "glm4_moe_lite", "kimi_k25"})
"""model_types with a table there, or whose language model has one (Kimi-K2.5: DeepSeek-V3's)."""
_LINEAR = "megatron-core's gated delta net has GPU kernels alone (package fla), and Megatron trains on CPU processes so far"
_INDEXER = "megatron-core's indexer has GPU kernels alone (package fast_hadamard_transform), and Megatron trains on CPU processes so far"
NOT_STAGED: Mapping[str, str] = {
    **dict.fromkeys(("qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_next"), _LINEAR),
    **dict.fromkeys(("deepseek_v32", "glm_moe_dsa"), _INDEXER),
}
"""model_type -> why it has none, where megatron-core has its layers."""


def why_not_staged(model_type: str) -> str | None:
    """Return why the Megatron trainer refuses a proven family; None where it trains it."""
    if model_type in STAGED:
        return None
    return NOT_STAGED.get(model_type, "it has no table of this family")
