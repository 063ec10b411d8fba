"""Families that are built by their class and that the Megatron trainer cuts over ranks, too; why it refuses others.

The trainer's tables are its own (workload, train/megatron/families); a test holds this list against them.
"""

_HYBRID = ("qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_next")
_INDEXED = ("deepseek_v32", "glm_moe_dsa")
ON_CPUS: frozenset[str] = frozenset({*_HYBRID, *_INDEXED})
"""model_types whose layers were run on CPU processes alone: beside TransformerEngine's modules they are not placed."""
STAGED: frozenset[str] = frozenset({"glm4_moe", "glm4_moe_lite", "kimi_k25", *ON_CPUS})
"""model_types with a table there, or whose language model has one (Kimi-K2.5: DeepSeek-V3's)."""


def why_not_staged(model_type: str, on_cpus: bool) -> str | None:
    """Return why the Megatron trainer refuses a proven family, on CPU processes or on GPUs; None where it trains it."""
    if model_type not in STAGED:
        return "it has no table of this family"
    if model_type in ON_CPUS and not on_cpus:
        return "it trains this family on CPU processes alone (accelerator cpu)"
    return None
