"""DeepSeek-V3, Moonlight and Kimi-K2: latent attention; experts chosen by sigmoids with a correction bias, shared experts beside. Pure."""

from lprl_api.errors import UserError
from lprl_api.model.model_shape import ModelShape
from lprl_workload.train.megatron.families.family import (
    GATED_MLP,
    MLP_NORMS,
    REMEDY,
    ROUTED_EXPERTS,
    SHARED_EXPERTS,
    Config,
    Family,
    Fields,
    routed_experts,
    sigmoid_router,
    usual,
)
from lprl_workload.train.megatron.table import Row

_ATTENTION = "self_attention."

LATENT_ATTENTION = (
    Row("input_layernorm.weight", ("input_layernorm.weight",)),
    Row(f"{_ATTENTION}linear_q_proj.weight", ("self_attn.q_proj.weight",), "rows"),
    Row(f"{_ATTENTION}linear_q_down_proj.weight", ("self_attn.q_a_proj.weight",), "rows", te_cut="whole"),
    Row(f"{_ATTENTION}q_layernorm.weight", ("self_attn.q_a_layernorm.weight",), te=f"{_ATTENTION}linear_q_up_proj.layer_norm_weight"),
    Row(f"{_ATTENTION}linear_q_up_proj.weight", ("self_attn.q_b_proj.weight",), "rows"),
    Row(f"{_ATTENTION}linear_kv_down_proj.weight", ("self_attn.kv_a_proj_with_mqa.weight",), "rows", te_cut="whole"),
    Row(f"{_ATTENTION}kv_layernorm.weight", ("self_attn.kv_a_layernorm.weight",), te=f"{_ATTENTION}linear_kv_up_proj.layer_norm_weight"),
    Row(f"{_ATTENTION}linear_kv_up_proj.weight", ("self_attn.kv_b_proj.weight",), "rows"),
    Row(f"{_ATTENTION}linear_proj.weight", ("self_attn.o_proj.weight",), "columns"),
)


def latent_fields(shape: ModelShape, config: Config) -> Fields:
    """Return the fields of a model with latent attention."""
    assert shape.mla is not None
    for key, needed in (("attention_bias", False), ("rope_interleave", True)):
        if config.get(key, needed) is not needed:
            what = f"config.json: {key} {str(config[key]).lower()}: backends.trainer megatron trains {str(needed).lower()} only"
            raise UserError(what, REMEDY)
    rope = config["rope_parameters"]
    return {
        **usual(shape, config),
        **routed_experts(shape, config),
        **sigmoid_router(shape, config),
        "num_attention_heads": shape.heads,
        "multi_latent_attention": True,
        "q_lora_rank": shape.mla.q_lora_rank,
        "kv_lora_rank": shape.mla.kv_lora_rank,
        "qk_head_dim": shape.mla.qk_nope_head_dim,
        "qk_pos_emb_head_dim": shape.mla.qk_rope_head_dim,
        "v_head_dim": shape.mla.v_head_dim,
        "qk_layernorm": True,
        # Frequencies are given to it; of YaRN it scales the softmax by itself.
        "rope_type": "rope",
        "rotary_scaling_factor": rope.get("factor", 1.0) if rope.get("rope_type", "default") != "default" else 1.0,
        "mscale_all_dim": rope.get("mscale_all_dim", 0.0),
    }


DEEPSEEK_V3 = Family("deepseek-v3", (*LATENT_ATTENTION, *GATED_MLP, *ROUTED_EXPERTS, *SHARED_EXPERTS, *MLP_NORMS), latent_fields)
