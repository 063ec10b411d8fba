"""Keys of a config.json that change what a model computes, held against the classes that train and serve it here.

transformers' Llama, Qwen2, Qwen3, Qwen3-MoE and DeepSeek-V3 classes ignore keys they do not know, without a word: the model would be
another one. Such a key is refused unless its value changes nothing. Keys that the classes compute (norm_topk_prob, routed_scaling_factor,
rms_norm_eps, YaRN, ...) are theirs, and keys about losses, dropout or caching play no part here.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from lprl_api.errors import UserError

Accepts = Callable[[Any], bool]
ACTIVATIONS = ("silu", "swish", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python", "quick_gelu", "relu", "relu2", "relu6")
"""Of `hidden_act`: the classes compute these (engines may know fewer and say so)."""
ROPE = ("default", "linear", "dynamic", "yarn", "llama3")
"""Rotary tables that are the same for every sequence. longrope is not: it goes by the longest sequence of a batch."""
SIGMOID = "sigmoid: the class that trains and serves the model here computes no other router"


class Read(Protocol):
    """Look-ups in a configuration whose errors name the key."""

    def error(self, key: str, needs: str) -> UserError:
        """Return the error of a key."""


def _is(*neutral: object) -> Accepts:
    return lambda value: any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral)


_OFF, _ONE, _ZERO = _is(False, None), _is(1, 1.0), _is(0, 0.0)
_OTHER_ATTENTION = (
    "dual_chunk_attention_config", "sparse_attention_config", "moba_chunk_size", "use_logn_attn", "attn_temperature_tuning",
    "use_bidirectional_attention", "rotary_interleaved", "rope_local_base_freq",
)  # fmt: skip
_OTHER_NORMS = ("use_sandwich_norm", "sandwich_norm", "norm_after", "use_post_norm", "apply_layernorm_1p", "zero_centered_rmsnorm")
_LOOPS = ("use_cla", "cla_share_factor", "cross_layer_sharing", "total_ut_steps", "mean_recurrence", "hc_mult")
_MULTIPLIERS = (
    "dim_model_base", "use_mup", "lm_head_multiplier", "key_multiplier", "attention_out_multiplier", "mlp_multipliers",
    "output_multiplier_scale",
)  # fmt: skip
_ROPE_KEYS = ("alpha", "llama_4_scaling_beta", "rope_local_base_freq")
"""Of a rotary table: other models' classes compute them, the ones here pass over them."""


def _each(accepts: Accepts, needs: str, *keys: str) -> Mapping[str, tuple[Accepts, str]]:
    return dict.fromkeys(keys, (accepts, needs))


EVERY: Mapping[str, tuple[Accepts, str]] = {
    "hidden_act": (_is(*ACTIVATIONS), f"one of {', '.join(ACTIVATIONS)}"),
    "partial_rotary_factor": (_ONE, "1: the class rotates whole heads"),
    "rotary_pct": (_ONE, "1: the class rotates whole heads"),
    "attention_chunk_size": (_OFF, "null: attention is not chunked"),
    "attn_logit_softcapping": (_OFF, "null: the class caps no logits"),
    "final_logit_softcapping": (_OFF, "null: the class caps no logits"),
    "logit_scale": (_ONE, "1: the class scales no logits"),
    "logits_scaling": (_ONE, "1: the class scales no logits"),
    "embedding_multiplier": (_ONE, "1: the class scales no embeddings"),
    "residual_multiplier": (_ONE, "1: the class scales no residuals"),
    "attention_multiplier": (_OFF, "null: the class scales attention by the head's channels"),
    "query_pre_attn_scalar": (_OFF, "null: the class scales attention by the head's channels"),
    "scale_emb": (_ONE, "1: the class scales no embeddings"),
    "scale_depth": (_ONE, "1: the class scales no residuals"),
    "clip_qkv": (_OFF, "null: the class clips nothing"),
    "use_parallel_residual": (_OFF, "false: attention and MLP come one after the other"),
    "parallel_attn": (_OFF, "false: attention and MLP come one after the other"),
    "alibi": (_OFF, "false: positions are rotary"),
    "no_rope_layers": (lambda value: not value or all(value), "empty: every layer rotates"),
    "no_rope_layer_interval": (_is(0), "0: every layer rotates"),
    "num_kv_shared_layers": (_ZERO, "0: every layer has keys and values of its own"),
    "attention_sink": (_OFF, "false: the class has no sinks"),
    "add_swa_attention_sink_bias": (_OFF, "false: the class has no sinks"),
    "index_topk": (_OFF, "null: the class attends to every token"),
    "zero_expert_num": (_ZERO, "0: every expert has weights"),
    "swiglu_limit": (_OFF, "null: the class clamps nothing"),
    "is_causal": (_is(True), "true: responses are made token by token"),
    "position_embedding_type": (_is("rope", "rotary"), "rope: positions are rotary"),
    "use_rope": (_is(True), "true: positions are rotary"),
    "nope_layer_interval": (_is(0), "0: every layer rotates"),
    **_each(_OFF, "null: the class attends to every token, wherever it is", *_OTHER_ATTENTION),
    **_each(
        _OFF, "null: the class caps and clips nothing", "attn_logit_softcap", "final_logit_softcap", "router_logit_softcapping", "qkv_clip"
    ),
    **_each(_OFF, "false: the class has no such norm", *_OTHER_NORMS),
    **_each(_OFF, "false: the class has no such gate", "attn_output_gate", "use_head_wise_attn_gate"),
    **_each(_is(1, False), "null: every layer has weights of its own and runs once", *_LOOPS),
    **_each(_is(1, 1.0, False), "null: the class scales nothing", *_MULTIPLIERS),
}
"""What no class here computes. A key that is missing changes nothing."""
_NO_QK_NORM: dict[str, tuple[Accepts, str]] = {
    key: (_OFF, "false: the class normalises no queries") for key in ("use_qk_norm", "qk_layernorm")
}
FAMILY: Mapping[str, Mapping[str, tuple[Accepts, str]]] = {
    "llama": _NO_QK_NORM | {"rope_interleave": (_OFF, "false: the class rotates halves")},
    "qwen2": _NO_QK_NORM,
    "qwen3": {},
    "qwen3-moe": {
        "scoring_func": (_is("softmax"), "softmax: the class computes no other router"),
        "n_group": (_is(1, None), "1: the class picks from all experts"),
        "topk_group": (_is(1, None), "1: the class picks from all experts"),
        "routed_scaling_factor": (_is(1, 1.0, None), "1: the class scales no expert's output"),
    },
    "deepseek-v3": {
        "scoring_func": (_is("sigmoid"), SIGMOID),
        "topk_method": (_is("noaux_tc"), "noaux_tc: the class picks experts by group and with their correction bias"),
        "mlp_bias": (_OFF, "false: the class has no such bias"),
        "rope_interleave": (_is(True), "true: engines read the rotated channels of this family interleaved"),
        "qk_layernorm": (_OFF, "false"),
    },
}
"""What the class of a family does not compute, or computes one way only."""


def check_computed(text: Mapping[str, Any], family: str, read: Read) -> None:
    """Refuse a configuration that means another computation than the class of its family: raises UserError naming the key."""
    for key, (accepts, needs) in {**EVERY, **FAMILY[family]}.items():
        if text.get(key) is not None and not accepts(text[key]):
            raise read.error(key, needs)
    _check_window(text, read)
    _check_rope(text, read)
    if family == "deepseek-v3":
        _check_groups(text, read)


def _check_window(text: Mapping[str, Any], read: Read) -> None:
    """Refuse attention that sees a part of the sequence: SGLang's classes of these families attend to all of it."""
    window, positions = text.get("sliding_window"), text.get("max_position_embeddings")
    inert = isinstance(window, int) and isinstance(positions, int) and window >= positions
    if inert:
        return
    needs = "full attention in every layer: engines serve this architecture without a window"
    kinds = text.get("layer_types") or ()
    if not isinstance(kinds, list | tuple) or any(kind != "full_attention" for kind in kinds):
        raise read.error("layer_types", needs)
    if text.get("use_sliding_window", window is not None) and (window is not None or text.get("use_sliding_window")):
        raise read.error("use_sliding_window" if "use_sliding_window" in text else "sliding_window", needs)


def _check_rope(text: Mapping[str, Any], read: Read) -> None:
    """Refuse rotary positions that the class ignores, or that depend on what else is in a batch."""
    for key in ("rope_parameters", "rope_scaling"):
        rope = text.get(key)
        if rope is None:
            continue
        if not isinstance(rope, Mapping) or any(isinstance(value, Mapping) for value in rope.values()):
            raise read.error(key, "one object for all layers")
        if rope.get("rope_type", rope.get("type", "default")) not in ROPE:
            raise read.error(key, f"a rope_type of {', '.join(ROPE)}")
        if rope.get("partial_rotary_factor", 1) not in (1, None):
            raise read.error(key, "partial_rotary_factor 1: the class rotates whole heads")
        if other := next((name for name in _ROPE_KEYS if rope.get(name) is not None), None):
            raise read.error(key, f"no {other}: the class passes over it")
        theta, inner = text.get("rope_theta"), rope.get("rope_theta")
        if theta is not None and inner is not None and theta != inner:
            raise read.error("rope_theta", f"{inner}, as in {key}: transformers reads one, engines the other")


def _check_groups(text: Mapping[str, Any], read: Read) -> None:
    """Refuse expert groups that the class cannot form."""
    groups, chosen, experts = text.get("n_group", 8), text.get("topk_group", 4), text.get("n_routed_experts")
    if not isinstance(experts, int):
        return  # told with the dimensions
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1 or experts % groups:
        raise read.error("n_group", f"a divisor of n_routed_experts ({experts})")
    if experts // groups < 2:
        raise read.error("n_group", f"at most {experts // 2}: a group of experts is ranked by its two best")
    if isinstance(chosen, bool) or not isinstance(chosen, int) or not 1 <= chosen <= groups:
        raise read.error("topk_group", f"a number from 1 to n_group ({groups})")
    each, most = text.get("num_experts_per_tok"), chosen * (experts // groups)
    if isinstance(each, int) and each > most:
        raise read.error("num_experts_per_tok", f"at most {most}, the experts of topk_group {chosen} groups")
