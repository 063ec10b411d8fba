"""Qwen3-Next, Qwen3.5 and 3.6: gated delta nets between layers of attention with a gate; dense, or experts beside one with a gate. Pure."""

from lprl_api.errors import UserError
from lprl_api.model.model_shape import ModelShape
from lprl_workload.train.megatron.families.family import (
    GATED_MLP,
    GROUPED_ATTENTION,
    NORMS,
    QUERY_KEY_NORMS,
    REMEDY,
    ROUTED_EXPERTS,
    Config,
    Family,
    Fields,
    routed_experts,
    usual,
    usual_attention,
)
from lprl_workload.train.megatron.table import Row

_NET, _OUT = "self_attention.net.", "linear_attn.out_proj.weight"
_SHARED = "mlp.shared_expert"
DELTA_NET = (
    Row(f"{_NET}in_proj_qkv.weight", ("linear_attn.in_proj_qkv.weight",), "sections", beside=_OUT),
    *(Row(f"{_NET}in_proj_{name}.weight", (f"linear_attn.in_proj_{name}.weight",), "rows") for name in ("z", "b", "a")),
    # Qwen3-Next's: what belongs to one head of keys lies together.
    *(Row(f"{_NET}in_proj_{name}.weight", (f"linear_attn.in_proj_{name}.weight",), "rows") for name in ("qkvz", "ba")),
    Row(f"{_NET}conv1d.weight", ("linear_attn.conv1d.weight",), "sections", beside=_OUT),
    *(Row(f"{_NET}{name}", (f"linear_attn.{name}",), "rows") for name in ("dt_bias", "A_log")),
    Row(f"{_NET}norm.weight", ("linear_attn.norm.weight",)),
    Row(f"{_NET}out_proj.weight", (_OUT,), "columns"),
)
SHARED_EXPERT = (
    Row("mlp.shared_experts.gate_weight", (f"{_SHARED}_gate.weight",)),
    Row("mlp.shared_experts.linear_fc1.weight", (f"{_SHARED}.gate_proj.weight", f"{_SHARED}.up_proj.weight"), "rows"),
    Row("mlp.shared_experts.linear_fc2.weight", (f"{_SHARED}.down_proj.weight",), "columns"),
)


def _fields(shape: ModelShape, config: Config) -> Fields:
    if config.get("attention_bias"):
        raise UserError("config.json: attention_bias true: backends.trainer megatron does not train it", REMEDY)
    found = {
        **usual(shape, config),
        **usual_attention(shape, config),
        **routed_experts(shape, config),
        "qk_layernorm": True,
        "add_qkv_bias": False,
        "attention_output_gate": True,
    }
    if shape.moe is not None:
        found |= {
            "moe_router_pre_softmax": not config.get("norm_topk_prob", True),
            "moe_shared_expert_intermediate_size": shape.moe.shared_expert_ffn or None,
            "moe_shared_expert_gate": True,
        }
    return found


_LAYER = (*GROUPED_ATTENTION, *QUERY_KEY_NORMS, *DELTA_NET, *GATED_MLP, *ROUTED_EXPERTS, *SHARED_EXPERT, *NORMS)
QWEN3_5 = tuple(
    Family(name, _LAYER, _fields, modules="hybrid") for name in ("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text")
)
