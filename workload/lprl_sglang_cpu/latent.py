"""Latent attention (DeepSeek-V3): what SGLang derives from a quantised kv_b_proj, with the quantizer's values.

While it decodes, SGLang multiplies with the two halves of kv_b_proj on their own, and for FP8 it would quantise them again with one
scale. Here the halves are the dequantised values. Their product's input is the latent, which FP8 activations quantise: as SGLang
keeps latents in its cache, they are quantised where they arise.

Its rotary embedding for CPUs knows YaRN alone; without scaling (Moonlight) the one that GPUs use is as good here.
"""

from collections.abc import Iterable
from typing import Any

import torch
from sglang.srt.layers.rotary_embedding import get_rope, get_rope_wrapper
from sglang.srt.models import deepseek_v2
from sglang.srt.models.deepseek_common.deepseek_weight_loader import DeepseekV2WeightLoaderMixin
from torch import Tensor

from lprl_workload.hf.activations import fake_quantize_activations

_theirs = DeepseekV2WeightLoaderMixin.post_load_weights


def install() -> None:
    """Have every DeepSeek model of this process derive its halves here; repeating it changes nothing."""
    DeepseekV2WeightLoaderMixin.post_load_weights = _post_load_weights
    deepseek_v2.get_rope_wrapper = _rotary


def _rotary(*sizes: Any, rope_scaling: Any = None, device: Any = None, **settings: Any) -> Any:
    if rope_scaling is not None:
        return get_rope_wrapper(*sizes, rope_scaling=rope_scaling, device=device, **settings)
    return get_rope(*sizes, **settings)


def _post_load_weights(model: Any, is_nextn: bool = False, weight_names: Iterable[str] | None = None) -> None:
    """Derive what was quantised of the layers that `weight_names` names (None: all); SGLang does so for the others."""
    names = None if weight_names is None else [name for name in weight_names if "kv_b_proj" in name]
    layers = [model.model.decoder] if is_nextn else model.model.layers[model.model.start_layer : model.model.end_layer]
    if any(layer.self_attn.kv_b_proj.weight.element_size() > 1 for layer in layers if hasattr(layer.self_attn, "kv_b_proj")):
        _theirs(model, is_nextn, names)
        return
    for layer in layers:
        _derive(layer.self_attn)


def _derive(attention: Any) -> None:
    """Set w_kc and w_vc of an attention module, in place where they exist already."""
    projection = attention.kv_b_proj
    weight, group = (projection.scheme or projection.quant_method).values(projection)
    sizes = [attention.qk_nope_head_dim, attention.v_head_dim]
    keys, values = weight.to(attention.kv_a_layernorm.weight.dtype).unflatten(0, (-1, sum(sizes))).split(sizes, dim=1)
    attention.w_kc = _kept(attention.w_kc, keys)
    attention.w_vc = _kept(attention.w_vc, values.transpose(1, 2))
    if group is not None and not hasattr(attention.kv_a_layernorm, "lprl_activation_group"):
        attention.kv_a_layernorm.lprl_activation_group = group
        attention.kv_a_layernorm.register_forward_hook(_quantise_output)


def _kept(present: Tensor | None, value: Tensor) -> Tensor:
    if present is None:
        return value.contiguous()
    return present.copy_(value)


def _quantise_output(norm: Any, inputs: Any, output: Tensor) -> Tensor:
    with torch.no_grad():
        return fake_quantize_activations(output, norm.lprl_activation_group)
