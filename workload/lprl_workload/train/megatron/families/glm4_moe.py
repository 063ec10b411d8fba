"""GLM-4.5, 4.6 and 4.7: usual attention, its rotary part alone turned; experts chosen by sigmoids, shared ones beside. Pure."""

from lprl_api.model.model_shape import ModelShape
from lprl_workload.train.megatron.families.family import (
    GATED_MLP,
    GROUPED_ATTENTION,
    NORMS,
    QUERY_KEY_NORMS,
    ROUTED_EXPERTS,
    SHARED_EXPERTS,
    Config,
    Family,
    Fields,
    routed_experts,
    sigmoid_router,
    usual,
    usual_attention,
)


def _fields(shape: ModelShape, config: Config) -> Fields:
    return {
        **usual(shape, config),
        **usual_attention(shape, config),
        **routed_experts(shape, config),
        **sigmoid_router(shape, config),
        # Its shape says of layers what they weigh; these two are config.json's.
        "qk_layernorm": config["use_qk_norm"],
        "add_qkv_bias": config["attention_bias"],
    }


GLM4_MOE = Family("glm4_moe", (*GROUPED_ATTENTION, *QUERY_KEY_NORMS, *GATED_MLP, *ROUTED_EXPERTS, *SHARED_EXPERTS, *NORMS), _fields)
