"""Qwen2 and Qwen2.5: query, key and value have biases. Pure."""

from lprl_api.errors import UserError
from lprl_api.model.model_shape import ModelShape
from lprl_workload.train.megatron.families.family import GATED_MLP, GROUPED_ATTENTION, NORMS, Config, Family, Fields, usual, usual_attention


def _fields(shape: ModelShape, config: Config) -> Fields:
    refuse_windows(config)
    return {**usual(shape, config), **usual_attention(shape, config)}


def refuse_windows(config: Config) -> None:
    """Raise UserError where some layers see a window only."""
    if config.get("use_sliding_window"):
        what = "config.json: use_sliding_window true: backends.trainer megatron trains attention without windows only"
        raise UserError(what, "use backends.trainer torch")


QWEN2 = Family("qwen2", (*GROUPED_ATTENTION, *GATED_MLP, *NORMS), _fields)
