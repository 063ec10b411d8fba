"""Qwen3-MoE: routed experts, chosen by a softmax over all of them. Pure."""

from lprl_api.model.model_shape import ModelShape
from lprl_workload.train.megatron.families.family import (
    GATED_MLP,
    GROUPED_ATTENTION,
    NORMS,
    QUERY_KEY_NORMS,
    ROUTED_EXPERTS,
    Config,
    Family,
    Fields,
    routed_experts,
)
from lprl_workload.train.megatron.families.qwen3 import qwen3_fields


def _fields(shape: ModelShape, config: Config) -> Fields:
    return {
        **qwen3_fields(shape, config),
        **routed_experts(shape, config),
        # A softmax of the chosen logits is the softmax of all of them, divided by the chosen ones' sum.
        "moe_router_pre_softmax": not config["norm_topk_prob"],
    }


QWEN3_MOE = Family("qwen3-moe", (*GROUPED_ATTENTION, *QUERY_KEY_NORMS, *GATED_MLP, *ROUTED_EXPERTS, *NORMS), _fields)
