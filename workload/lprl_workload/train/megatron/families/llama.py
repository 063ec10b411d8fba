"""Llama 2 and 3, and what has their layers (Mistral without windows, SmolLM2). Pure."""

from lprl_api.errors import UserError
from lprl_api.model.model_shape import ModelShape
from lprl_workload.train.megatron.families.family import GATED_MLP, GROUPED_ATTENTION, NORMS, Config, Family, Fields, usual, usual_attention


def _fields(shape: ModelShape, config: Config) -> Fields:
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key):
            # Megatron has a bias on all linear layers of a block, or on query, key and value alone.
            raise UserError(f"config.json: {key} true: backends.trainer megatron does not train it", "use backends.trainer torch")
    return {**usual(shape, config), **usual_attention(shape, config)}


LLAMA = Family("llama", (*GROUPED_ATTENTION, *GATED_MLP, *NORMS), _fields)
