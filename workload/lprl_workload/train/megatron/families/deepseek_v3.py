"""DeepSeek-V3, Moonlight and Kimi-K2: latent attention; experts chosen by sigmoids with a correction bias, shared experts beside. Pure."""

from lprl_api.errors import UserError
from lprl_api.model.model_shape import ModelShape
from lprl_workload.train.megatron.families.family import GATED_MLP, MLP_NORMS, ROUTED_EXPERTS, Config, Family, Fields, routed_experts, usual
from lprl_workload.train.megatron.table import Row

_ATTENTION, _MLP = "self_attention.", "mlp."

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
SHARED_EXPERTS = (
    Row(f"{_MLP}router.expert_bias", ("mlp.gate.e_score_correction_bias",)),
    Row(
        f"{_MLP}shared_experts.linear_fc1.weight",
        ("mlp.shared_experts.gate_proj.weight", "mlp.shared_experts.up_proj.weight"),
        "rows",
    ),
    Row(f"{_MLP}shared_experts.linear_fc2.weight", ("mlp.shared_experts.down_proj.weight",), "columns"),
)
REMEDY = "use backends.trainer torch"


def _fields(shape: ModelShape, config: Config) -> Fields:
    assert shape.mla is not None
    for key, needed in (("attention_bias", False), ("rope_interleave", True), ("norm_topk_prob", True)):
        if config.get(key, needed) is not needed:
            what = f"config.json: {key} {str(config[key]).lower()}: backends.trainer megatron trains {str(needed).lower()} only"
            raise UserError(what, REMEDY)
    rope = config["rope_parameters"]
    return {
        **usual(shape, config),
        **routed_experts(shape, config),
        **_router(shape, config),
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


def _router(shape: ModelShape, config: Config) -> Fields:
    if shape.moe is None:
        return {}
    groups, chosen = config["n_group"], config["topk_group"]
    if groups > 1 and shape.moe.experts_per_token != 2 * chosen:
        # Megatron scores a group by its best (experts a token / groups chosen), transformers by its best two.
        what = f"config.json: num_experts_per_tok {shape.moe.experts_per_token} of topk_group {chosen} groups"
        raise UserError(f"{what}: backends.trainer megatron needs {2 * chosen}", REMEDY)
    return {
        "moe_router_score_function": "sigmoid",
        "moe_router_enable_expert_bias": True,
        "moe_router_num_groups": groups if groups > 1 else None,
        "moe_router_group_topk": chosen if groups > 1 else None,
        "moe_router_topk_scaling_factor": config["routed_scaling_factor"],
        "moe_shared_expert_intermediate_size": shape.moe.shared_expert_ffn or None,
    }


DEEPSEEK_V3 = Family("deepseek-v3", (*LATENT_ATTENTION, *GATED_MLP, *ROUTED_EXPERTS, *SHARED_EXPERTS, *MLP_NORMS), _fields)
