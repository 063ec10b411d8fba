"""Every tensor of a checkpoint, by name and shape, from the model's shape: what a folder must hold to be that model."""

from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType

from lprl_api.model.model_shape import ModelShape
from lprl_api.model.weight import Weight
from lprl_api.model.weights import all_weights, layer_weights

Dimensions = tuple[int, ...]
PREFIX = "model."
HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
_SHARED = ("embed_tokens.weight", "shared_head.head.weight")
CORRECTION = ".e_score_correction_bias"
"""How the names of router correction biases end: float32 in checkpoints, steered by whoever trained the model, never trained here."""
_VECTORS = (".bias", CORRECTION, ".A_log", ".dt_bias", ".D")
"""Modules' own vectors: the name is the tensor's, without `.weight`."""
_CONVOLUTION = "conv1d"
"""How the names of convolutions end: each channel has a kernel of its own, [channels, 1, kernel]."""


@cache
def checkpoint_tensors(shape: ModelShape) -> Mapping[str, Dimensions]:
    """Return Hugging Face name -> shape of every high-precision tensor, in the order of the layers.

    Experts one by one, as published checkpoints have them; no head where it is tied; multi-token-prediction layers and
    computed tables (rotary frequencies) not included.
    """
    return MappingProxyType(_named(all_weights(shape)))


@cache
def further_tensors(shape: ModelShape) -> Mapping[str, Dimensions]:
    """Return Hugging Face name -> shape of every tensor of the multi-token-prediction layers that a shape promises.

    Each is a layer after the last with three norms and a projection of its own. `may_be_shared` says what may be left out.
    """
    found: dict[str, Dimensions] = {}
    for layer in range(shape.layers, shape.layers + shape.mtp_layers):
        base = f"{PREFIX}layers.{layer}"
        found |= _named((f"{base}.{weight.module}", weight) for weight in layer_weights(shape, layer))
        found |= {f"{base}.{norm}.weight": (shape.hidden,) for norm in ("enorm", "hnorm", "shared_head.norm")}
        found |= {f"{base}.{leaf}": (shape.vocab, shape.hidden) for leaf in _SHARED}
        found[f"{base}.eh_proj.weight"] = (shape.hidden, 2 * shape.hidden)
    return MappingProxyType(found)


def may_be_shared(name: str) -> bool:
    """Return whether a tensor of a multi-token-prediction layer may be left out: engines take the model's embedding or head."""
    return name.endswith(_SHARED)


def _named(weights: Iterable[tuple[str, Weight]]) -> dict[str, Dimensions]:
    found: dict[str, Dimensions] = {}
    for module, weight in weights:
        name, dimensions = tensor_of(module, weight)
        if "experts.*" in name:
            found |= {name.replace("experts.*", f"experts.{expert}"): dimensions for expert in range(weight.copies)}
        else:
            found[name] = dimensions
    return found


def tensor_of(module: str, weight: Weight) -> tuple[str, Dimensions]:
    """Return name and shape of a weight's tensor; `*` stands for the expert."""
    if module.endswith(_VECTORS):
        return module, (weight.rows,)
    if module.endswith(_CONVOLUTION):
        return f"{module}.weight", (weight.rows, 1, weight.cols)
    return f"{module}.weight", (weight.rows,) if weight.kind == "norm" else (weight.rows, weight.cols)


def fused_experts(shape: ModelShape) -> Mapping[str, Dimensions]:
    """Return last name -> shape of the 3-D tensors that transformers 5 can keep a layer's experts in; empty without experts."""
    if shape.moe is None:
        return {}
    count, ffn = shape.moe.experts, shape.moe.expert_ffn
    return {"gate_up_proj": (count, 2 * ffn, shape.hidden), "down_proj": (count, shape.hidden, ffn)}
