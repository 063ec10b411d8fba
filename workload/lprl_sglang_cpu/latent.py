"""Latent attention (DeepSeek-V3): what SGLang derives from a quantised kv_b_proj, with the quantizer's values.

SGLang keeps latents in its cache and multiplies with the two halves of kv_b_proj on their own, which for FP8 it would quantise again
with one scale. Here the halves are the dequantised values. Their product's input is the latent, which FP8 activations quantise: it is
quantised where it arises. Prompts are computed in the same way, since PyTorch's attention reads keys and values from the cache alone.

Its rotary embedding for CPUs knows YaRN alone; without scaling (Moonlight) the one that GPUs use is as good here.
"""

from collections.abc import Iterable
from typing import Any

import torch
from sglang.srt.layers.rotary_embedding import get_rope, get_rope_wrapper
from sglang.srt.models import deepseek_v2
from sglang.srt.models.deepseek_common.attention_backend_handler import AttentionBackendRegistry
from sglang.srt.models.deepseek_common.attention_forward_methods.forward_methods import AttnForwardMethod
from sglang.srt.models.deepseek_common.deepseek_weight_loader import DeepseekV2WeightLoaderMixin
from torch import Tensor

from lprl_workload.hf.activations import fake_quantize_activations

_theirs = DeepseekV2WeightLoaderMixin.post_load_weights


def install() -> None:
    """Have every DeepSeek model of this process derive its halves here; repeating it changes nothing."""
    DeepseekV2WeightLoaderMixin.post_load_weights = _post_load_weights
    deepseek_v2.get_rope_wrapper = _rotary
    AttentionBackendRegistry.register("torch_native", lambda attention, batch: AttnForwardMethod.MLA)


def _rotary(*sizes: Any, rope_scaling: Any = None, device: Any = None, **settings: Any) -> Any:
    if rope_scaling is not None:
        return get_rope_wrapper(*sizes, rope_scaling=rope_scaling, device=device, **settings)
    return get_rope(*sizes, **settings)


def _post_load_weights(model: Any, is_nextn: bool = False, weight_names: Iterable[str] | None = None) -> None:
    """Derive the halves of every quantised layer; SGLang does so for the others."""
    if is_nextn:  # one layer, which predicts a token more
        quantised, others = [layer for layer in [model.model.decoder] if _is_quantised(layer)], []
        theirs = not quantised
    else:
        layers = {number: model.model.layers[number] for number in range(model.model.start_layer, model.model.end_layer)}
        quantised = [layer for layer in layers.values() if _is_quantised(layer)]
        others = [f"model.layers.{number}.self_attn.kv_b_proj.weight" for number, layer in layers.items() if not _is_quantised(layer)]
        theirs = bool(others)
    if theirs:
        _theirs(model, is_nextn, others)
    for layer in quantised:
        _derive(layer.self_attn)


def _is_quantised(layer: Any) -> bool:
    weight = getattr(getattr(layer.self_attn, "kv_b_proj", None), "weight", None)
    return weight is not None and bool(weight.element_size() == 1)


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
