"""What a family says of itself, and the blocks that families have in common. Pure.

A further family is one file: its table (of blocks, or of rows of its own) and what its config.json says to Megatron.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lprl_api.errors import UserError
from lprl_api.model.checkpoint_tensors import checkpoint_tensors
from lprl_api.model.model_shape import ModelShape
from lprl_workload.train.megatron.table import Row

Config = Mapping[str, Any]
"""config.json, with the defaults of transformers' class."""
Fields = dict[str, Any]
"""Fields of Megatron's TransformerConfig."""


@dataclass(frozen=True, slots=True)
class Family:
    """One family."""

    name: str
    """As in ModelShape.family, or the model_type of a family that is built by its class."""
    layer: tuple[Row, ...]
    """Every tensor a layer of its checkpoints can have; rows whose sources a layer lacks are left out."""
    fields: Callable[[ModelShape, Config], Fields]
    """Fields of Megatron's configuration that differ from model to model; raises UserError for what this trainer does not train."""
    modules: Literal["usual", "hybrid", "indexed"] = "usual"
    """Hybrid: attention with a gate, gated delta nets and norms that keep their weight less 1 (hybrid.py). Indexed: an indexer chooses keys
    (indexed.py)."""


_ATTENTION, _MLP = "self_attention.", "mlp."
_QKV = tuple(f"self_attn.{name}_proj" for name in "qkv")

GROUPED_ATTENTION = (
    Row(f"{_ATTENTION}linear_qkv.weight", tuple(f"{name}.weight" for name in _QKV), "groups"),
    Row(f"{_ATTENTION}linear_qkv.bias", tuple(f"{name}.bias" for name in _QKV), "groups"),
    Row(f"{_ATTENTION}linear_proj.weight", ("self_attn.o_proj.weight",), "columns"),
)
QUERY_KEY_NORMS = (
    Row(f"{_ATTENTION}q_layernorm.weight", ("self_attn.q_norm.weight",)),
    Row(f"{_ATTENTION}k_layernorm.weight", ("self_attn.k_norm.weight",)),
)
MLP_NORMS = (
    Row(
        "pre_mlp_layernorm.weight",
        ("post_attention_layernorm.weight",),
        te=f"{_MLP}linear_fc1.layer_norm_weight",
        beside="mlp.gate_proj.weight",
    ),
    Row("pre_mlp_layernorm.weight", ("post_attention_layernorm.weight",), beside="mlp.gate.weight"),
)
NORMS = (
    Row("input_layernorm.weight", ("input_layernorm.weight",), te=f"{_ATTENTION}linear_qkv.layer_norm_weight"),
    *MLP_NORMS,
)
GATED_MLP = (
    Row(f"{_MLP}linear_fc1.weight", ("mlp.gate_proj.weight", "mlp.up_proj.weight"), "rows"),
    Row(f"{_MLP}linear_fc2.weight", ("mlp.down_proj.weight",), "columns"),
)
ROUTED_EXPERTS = (
    Row(f"{_MLP}router.weight", ("mlp.gate.weight",)),
    Row(
        f"{_MLP}experts.local_experts.{{}}.linear_fc1.weight",
        ("mlp.experts.{}.gate_proj.weight", "mlp.experts.{}.up_proj.weight"),
        "rows",
        te=f"{_MLP}experts.linear_fc1.weight{{}}",
    ),
    Row(
        f"{_MLP}experts.local_experts.{{}}.linear_fc2.weight",
        ("mlp.experts.{}.down_proj.weight",),
        "columns",
        te=f"{_MLP}experts.linear_fc2.weight{{}}",
    ),
)


REMEDY = "use backends.trainer torch"
SHARED_EXPERTS = (
    Row(f"{_MLP}router.expert_bias", ("mlp.gate.e_score_correction_bias",)),
    Row(
        f"{_MLP}shared_experts.linear_fc1.weight",
        ("mlp.shared_experts.gate_proj.weight", "mlp.shared_experts.up_proj.weight"),
        "rows",
    ),
    Row(f"{_MLP}shared_experts.linear_fc2.weight", ("mlp.shared_experts.down_proj.weight",), "columns"),
)


def usual_attention(shape: ModelShape, config: Config) -> Fields:
    """Return the fields of attention with query groups."""
    return {
        "num_attention_heads": shape.heads,
        "num_query_groups": shape.kv_heads,
        "kv_channels": shape.head_dim,
        "qk_layernorm": shape.qk_norm,
        "add_qkv_bias": shape.attention_bias,
    }


def usual(shape: ModelShape, config: Config) -> Fields:
    """Return the fields that every decoder of this kind has."""
    return {
        "num_layers": shape.layers,
        "hidden_size": shape.hidden,
        "ffn_hidden_size": shape.ffn,
        "layernorm_epsilon": config["rms_norm_eps"],
    }


def routed_experts(shape: ModelShape, config: Config) -> Fields:
    """Return the fields of routed experts; empty without any."""
    if shape.moe is None:
        return {}
    tensors = checkpoint_tensors(shape)
    return {
        "num_moe_experts": shape.moe.experts,
        "moe_router_topk": shape.moe.experts_per_token,
        "moe_ffn_hidden_size": shape.moe.expert_ffn,
        "moe_layer_freq": [int(f"model.layers.{layer}.mlp.gate.weight" in tensors) for layer in range(shape.layers)],
    }


def sigmoid_router(shape: ModelShape, config: Config) -> Fields:
    """Return the fields of experts chosen by sigmoids with a correction bias, shared ones beside; empty without experts."""
    if shape.moe is None:
        return {}
    if config.get("norm_topk_prob", True) is not True:
        raise UserError("config.json: norm_topk_prob false: backends.trainer megatron trains true only", REMEDY)
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
