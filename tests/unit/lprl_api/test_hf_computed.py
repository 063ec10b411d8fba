"""Keys of a config.json that mean another model than the class computes: refused by name, before anything is converted or trained."""

from typing import Any

import pytest
import torch
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers.activations import ACT2CLS
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lprl_api.errors import UserError
from lprl_api.model.hf_computed import ACTIVATIONS, ROPE
from lprl_api.model.hf_config import shape_from_config

COMMON = {
    "vocab_size": 32, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "initializer_range": 0.3,
}  # fmt: skip
DEEPSEEK = {
    "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 16, "first_k_dense_replace": 1,
    "n_group": 2, "topk_group": 1, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
    "num_nextn_predict_layers": 0, "num_key_value_heads": 4,
}  # fmt: skip
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "num_key_value_heads": 2, "head_dim": 8}
FAMILIES: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "llama": ({"model_type": "llama", "num_key_value_heads": 2}, LlamaConfig, LlamaForCausalLM),
    "qwen2": ({"model_type": "qwen2", "num_key_value_heads": 2}, Qwen2Config, Qwen2ForCausalLM),
    "qwen3": ({"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 8}, Qwen3Config, Qwen3ForCausalLM),
    "qwen3-moe": ({"model_type": "qwen3_moe"} | MOE, Qwen3MoeConfig, Qwen3MoeForCausalLM),
    "deepseek-v3": ({"model_type": "deepseek_v3"} | DEEPSEEK, DeepseekV3Config, DeepseekV3ForCausalLM),
}
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 16}
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": 8}


def config(family: str, **changes: object) -> dict[str, Any]:
    return COMMON | FAMILIES[family][0] | changes


def logits(family: str, **changes: object) -> torch.Tensor:
    """What the class of a family computes: the same weights every time."""
    _, config_class, model_class = FAMILIES[family]
    document = {k: v for k, v in config(family, **changes).items() if k != "model_type"}
    torch.manual_seed(0)
    model = model_class._from_config(config_class.from_dict(document), dtype=torch.float32, attn_implementation="sdpa").eval()
    with torch.no_grad():
        return model(torch.arange(24)[None] % 31).logits


IGNORED = {
    "every": {
        "attn_logit_softcapping": 30.0, "final_logit_softcapping": 5.0, "logit_scale": 0.5, "logits_scaling": 8.0,
        "embedding_multiplier": 12.0, "residual_multiplier": 0.2, "attention_multiplier": 0.01, "query_pre_attn_scalar": 256,
        "scale_emb": 12, "scale_depth": 1.4, "clip_qkv": 8.0, "use_parallel_residual": True, "parallel_attn": True, "alibi": True,
        "no_rope_layers": [1, 0], "num_kv_shared_layers": 1, "attention_sink": True, "index_topk": 4, "swiglu_limit": 7.0,
        "rotary_pct": 0.5, "partial_rotary_factor": 0.5, "attention_chunk_size": 8, "zero_expert_num": 2,
        "add_swa_attention_sink_bias": True, "dual_chunk_attention_config": {"chunk_size": 8, "local_size": 4},
        "sparse_attention_config": {"block": 4}, "moba_chunk_size": 8, "use_logn_attn": True, "attn_temperature_tuning": True,
        "use_bidirectional_attention": True, "position_embedding_type": "alibi", "nope_layer_interval": 2, "use_rope": False,
        "rotary_interleaved": True, "rope_local_base_freq": 5000.0, "dim_model_base": 8, "use_mup": True, "lm_head_multiplier": 0.5,
        "key_multiplier": 0.3, "attention_out_multiplier": 0.5, "mlp_multipliers": [0.5, 0.5], "output_multiplier_scale": 0.5,
        "attn_output_gate": True, "use_head_wise_attn_gate": True, "use_cla": True, "cla_share_factor": 2, "total_ut_steps": 4,
        "mean_recurrence": 8, "hc_mult": 4, "use_sandwich_norm": True, "sandwich_norm": True, "norm_after": True, "use_post_norm": True,
        "apply_layernorm_1p": True, "zero_centered_rmsnorm": True, "router_logit_softcapping": 30.0, "cross_layer_sharing": True,
        "attn_logit_softcap": 50.0, "final_logit_softcap": 30.0, "qkv_clip": 8.0,
    },
    "llama": {"use_qk_norm": True, "qk_layernorm": True, "sliding_window": 4, "rope_interleave": True},
    "qwen2": {"use_qk_norm": True},
    "qwen3-moe": {"scoring_func": "sigmoid", "n_group": 2, "topk_group": 2, "routed_scaling_factor": 2.5},
    "deepseek-v3": {"scoring_func": "softmax", "topk_method": "greedy", "qk_layernorm": True, "mlp_bias": True, "sliding_window": 4},
}  # fmt: skip
CASES = [(f, k, v) for f, table in IGNORED.items() if f != "every" for k, v in table.items()]
CASES += [(f, k, v) for k, v in IGNORED["every"].items() for f in FAMILIES]


@pytest.mark.parametrize(("family", "key", "value"), CASES, ids=[f"{f}-{k}" for f, k, _ in CASES])
def test_a_key_the_class_passes_over_is_refused_by_name(family: str, key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"^config\.json: {key}: got "):
        shape_from_config(config(family, **{key: value}))


@pytest.mark.parametrize("family", FAMILIES)
def test_that_the_class_passes_over_those_keys_is_executed(family: str) -> None:
    passed = IGNORED["every"] | IGNORED.get(family, {})
    assert torch.equal(logits(family), logits(family, **passed))


REFUSED = {
    "deepseek-group-limited-greedy": ("deepseek-v3", {"topk_method": "group_limited_greedy"}, "topk_method: got 'group_limited_greedy'"),
    "deepseek-rope-halves": ("deepseek-v3", {"rope_interleave": False}, "rope_interleave"),
    "deepseek-groups-do-not-divide": ("deepseek-v3", {"n_group": 3}, r"n_group: got '3'; needs a divisor of n_routed_experts \(8\)"),
    "deepseek-no-groups": ("deepseek-v3", {"n_group": None}, "n_group: got 'None'"),
    "deepseek-too-many-groups": ("deepseek-v3", {"topk_group": 3}, r"topk_group: got '3'; needs a number from 1 to n_group \(2\)"),
    "deepseek-groups-of-one-expert": ("deepseek-v3", {"n_group": 8, "topk_group": 4}, "n_group: got '8'; needs at most 4: a group"),
    "deepseek-more-experts-than-in-the-groups": (
        "deepseek-v3",
        {"num_experts_per_tok": 5},
        "num_experts_per_tok: got '5'; needs at most 4",
    ),
    "longrope": ("llama", {"rope_scaling": LONG}, "rope_scaling: got .*needs a rope_type of default, linear"),
    "old-name-of-longrope": ("llama", {"rope_scaling": LONG | {"rope_type": None, "type": "su"}}, "rope_scaling"),
    "mrope": ("qwen2", {"rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}}, "rope_scaling"),
    "unknown-rope": ("qwen3", {"rope_parameters": {"rope_type": "ntk-by-parts"}}, "rope_parameters"),
    "rope-per-layer-type": ("qwen3", {"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "one object for all layers"),
    "partial-rope-inside": (
        "qwen3",
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}},
        "partial_rotary_factor 1",
    ),
    "two-thetas": ("qwen3", {"rope_theta": 10000.0, "rope_parameters": {"rope_theta": 1e6}}, "rope_theta: got '10000.0'; needs 1000000.0"),
    "rope-alpha": ("llama", {"rope_scaling": {"type": "dynamic", "factor": 1.0, "alpha": 1000.0}}, "rope_scaling: .*alpha"),
    "rope-query-scale": (
        "qwen3",
        {"rope_parameters": {"rope_type": "default", "llama_4_scaling_beta": 0.1}},
        "rope_parameters: .*llama_4_scaling_beta",
    ),
    "rope-per-layer-bases": ("qwen3", {"rope_parameters": {"rope_type": "default", "rope_local_base_freq": 1e4}}, "rope_local_base_freq"),
    "not-causal": ("qwen2", {"is_causal": False}, "is_causal: got 'False'; needs true"),
    "window-on": ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "use_sliding_window"),
    "window-on-by-default": ("qwen3", {"use_sliding_window": True}, "use_sliding_window"),
    "window-of-an-moe": ("qwen3-moe", {"use_sliding_window": True, "sliding_window": 8}, "use_sliding_window"),
    "layer-types": ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
    "linear-layers": ("qwen3", {"layer_types": ["linear_attention", "full_attention"]}, "layer_types"),
    "activation": ("llama", {"hidden_act": "xielu"}, "hidden_act: got 'xielu'; needs one of silu"),
}


@pytest.mark.parametrize(("family", "changes", "match"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "text_config"])
def test_a_value_that_means_another_model_is_refused_by_name(family: str, changes: dict[str, Any], match: str, nested: bool) -> None:
    text = config(family, **changes)
    with pytest.raises(UserError, match=match) as refused:
        shape_from_config({"model_type": "x", "text_config": text} if nested else text)
    assert ("text_config." in refused.value.message) == nested


COMPUTED = {
    "norm_topk_prob": ("deepseek-v3", {"norm_topk_prob": False}),
    "norm_topk_prob-qwen": ("qwen3-moe", {"norm_topk_prob": True}),
    "routed_scaling_factor": ("deepseek-v3", {"routed_scaling_factor": 1.0}),
    "groups": ("deepseek-v3", {"n_group": 4, "topk_group": 2}),
    "eps": ("llama", {"rms_norm_eps": 0.1}),
    "gelu": ("qwen3", {"hidden_act": "gelu"}),
    "gelu-experts": ("qwen3-moe", {"hidden_act": "gelu_pytorch_tanh"}),
    "theta": ("qwen2", {"rope_theta": 100.0}),
    "yarn": ("deepseek-v3", {"rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}}),
    "linear": ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
}


@pytest.mark.parametrize(("family", "changes"), COMPUTED.values(), ids=COMPUTED)
def test_what_the_class_computes_is_taken_and_it_does_compute_it(family: str, changes: dict[str, Any]) -> None:
    shape_from_config(config(family, **changes))
    assert not torch.equal(logits(family, **changes), logits(family))


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"pretraining_tp": 2, "mlp_bias": False, "attention_bias": False, "sliding_window": None}),
        ("qwen2", {"use_sliding_window": False, "sliding_window": 8, "max_window_layers": 1, "use_mrope": False}),
        ("qwen3", {"layer_types": ["full_attention"] * 2, "rope_scaling": None, "sliding_window": None, "use_sliding_window": False}),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 64}),
        ("qwen3", {"is_causal": True, "position_embedding_type": "rope", "use_rope": True, "dual_chunk_attention_config": None}),
        ("llama", {"use_logn_attn": False, "rope_scaling": {"type": "dynamic", "factor": 2.0, "alpha": None}, "lm_head_multiplier": 1}),
        ("qwen3-moe", {"scoring_func": "softmax", "router_aux_loss_coef": 0.001, "output_router_logits": False}),
        ("deepseek-v3", {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "aux_loss_alpha": 0.001, "ep_size": 1, "seq_aux": True}),
    ],
)
def test_values_that_change_nothing_are_taken(family: str, changes: dict[str, Any]) -> None:
    shape_from_config(config(family, **changes))


def test_the_lists_are_those_of_transformers() -> None:
    assert set(ACTIVATIONS) <= set(ACT2CLS)
    assert set(ROPE) - {"default"} <= set(ROPE_INIT_FUNCTIONS)
