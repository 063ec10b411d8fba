"""Families that are built by their class and that the Megatron trainer cuts over ranks, too; why it refuses others.

The trainer's tables are its own (workload, train/megatron/families); a test holds this list against them.
"""

_HYBRID = ("qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_next")
_INDEXED = ("deepseek_v32", "glm_moe_dsa")
STAGED: frozenset[str] = frozenset({"glm4_moe", "glm4_moe_lite", "kimi_k25", *_HYBRID, *_INDEXED})
"""model_types with a table there, or whose language model has one (Kimi-K2.5: DeepSeek-V3's)."""


def why_not_staged(model_type: str) -> str | None:
    """Return why the Megatron trainer refuses a proven family; None where it trains it."""
    return None if model_type in STAGED else "it has no table of this family"
