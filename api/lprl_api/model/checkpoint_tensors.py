"""Every tensor of a checkpoint, by name and shape, from the model's shape: what a folder must hold to be that model."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from lprl_api.model.model_shape import ModelShape
from lprl_api.model.weights import Weight, all_weights

Dimensions = tuple[int, ...]
PREFIX = "model."
HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
_VECTORS = (".bias", ".e_score_correction_bias")
"""Modules' own vectors: the name is the tensor's, without `.weight`."""


@cache
def checkpoint_tensors(shape: ModelShape) -> Mapping[str, Dimensions]:
    """Return Hugging Face name -> shape of every high-precision tensor, in the order of the layers.

    Experts one by one, as published checkpoints have them; no head where it is tied; multi-token-prediction layers and
    computed tables (rotary frequencies) not included.
    """
    found: dict[str, Dimensions] = {}
    for module, weight in all_weights(shape):
        name, dimensions = tensor_of(module, weight)
        if "experts.*" in name:
            found |= {name.replace("experts.*", f"experts.{expert}"): dimensions for expert in range(weight.copies)}
        else:
            found[name] = dimensions
    return MappingProxyType(found)


def tensor_of(module: str, weight: Weight) -> tuple[str, Dimensions]:
    """Return name and shape of a weight's tensor; `*` stands for the expert."""
    if module.endswith(_VECTORS):
        return module, (weight.rows,)
    return f"{module}.weight", (weight.rows,) if weight.kind == "norm" else (weight.rows, weight.cols)


def fused_experts(shape: ModelShape) -> Mapping[str, Dimensions]:
    """Return last name -> shape of the 3-D tensors that transformers 5 can keep a layer's experts in; empty without experts."""
    if shape.moe is None:
        return {}
    count, ffn = shape.moe.experts, shape.moe.expert_ffn
    return {"gate_up_proj": (count, 2 * ffn, shape.hidden), "down_proj": (count, shape.hidden, ffn)}
