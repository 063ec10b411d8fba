"""Qwen3, dense: queries and keys are normalised head by head. Pure."""

from lprl_api.errors import UserError
from lprl_api.model.model_shape import ModelShape
from lprl_workload.train.megatron.families.family import (
    GATED_MLP,
    GROUPED_ATTENTION,
    NORMS,
    QUERY_KEY_NORMS,
    Config,
    Family,
    Fields,
    usual,
    usual_attention,
)
from lprl_workload.train.megatron.families.qwen2 import refuse_windows


def qwen3_fields(shape: ModelShape, config: Config) -> Fields:
    """Return the fields of Qwen3's attention and dense layers."""
    refuse_windows(config)
    if config.get("attention_bias"):
        # With a bias on the output projection as well, which Megatron does not have on its own.
        raise UserError("config.json: attention_bias true: backends.trainer megatron does not train it", "use backends.trainer torch")
    return {**usual(shape, config), **usual_attention(shape, config)}


QWEN3 = Family("qwen3", (*GROUPED_ATTENTION, *QUERY_KEY_NORMS, *GATED_MLP, *NORMS), qwen3_fields)
