"""config.json of small models with the real architectures: dimensions that exercise blocks, groups and ragged tails.

Sizes: `tiny` for unit tests (a forward pass in a few milliseconds), `demo` learns the task in a minute on a CPU, `blocks` is the
smallest that SGLang serves in every format (multiples of 128 where it merges matrices), `2gb` is at least 2 GB in BF16 and exists for
converter benchmarks. The intermediate sizes of the first two are no multiples of 128, so that 128x128 blocks have ragged tails; every
input width of a linear layer is a multiple of 32 in `tiny`, of 64 in `demo` and of 128 in the others: the INT4 group sizes that fit.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

Architecture = Literal["qwen3", "qwen3-moe", "deepseek-v3", "moonlight", "qwen2", "llama"]
Size = Literal["tiny", "demo", "blocks", "2gb"]
ARCHITECTURES: tuple[Architecture, ...] = ("qwen3", "qwen3-moe", "deepseek-v3", "moonlight", "qwen2", "llama")
SIZES: tuple[Size, ...] = ("tiny", "demo", "blocks", "2gb")


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Sizes of a model, in channels unless said otherwise."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    experts: int
    experts_per_token: int
    expert_ffn: int
    shared_experts: int
    kv_lora_rank: int
    q_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int


_DEMO = Dimensions(
    layers=2,
    hidden=128,
    heads=4,
    kv_heads=2,
    head_dim=32,
    ffn=192,
    experts=4,
    experts_per_token=2,
    expert_ffn=192,
    shared_experts=1,
    kv_lora_rank=64,
    q_lora_rank=64,
    qk_nope_head_dim=32,
    qk_rope_head_dim=16,
    v_head_dim=32,
)
_TINY = replace(_DEMO, hidden=64, heads=2, kv_heads=1, ffn=160, expert_ffn=96, q_lora_rank=32, kv_lora_rank=32)
_BLOCKS = replace(
    _DEMO,
    head_dim=64,
    ffn=256,
    expert_ffn=128,
    kv_lora_rank=128,
    q_lora_rank=128,
)
_BIG = replace(
    _DEMO,
    layers=16,
    hidden=2048,
    heads=16,
    kv_heads=4,
    head_dim=128,
    ffn=8192,
    experts=16,
    experts_per_token=4,
    expert_ffn=768,
    kv_lora_rank=512,
    q_lora_rank=768,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
)
DIMENSIONS: dict[Size, Dimensions] = {"tiny": _TINY, "demo": _DEMO, "blocks": _BLOCKS, "2gb": _BIG}


def _common(d: Dimensions, vocab: int, dtype: str, pad_id: int, eos_id: int) -> dict[str, Any]:
    return {
        "hidden_act": "silu",
        "hidden_size": d.hidden,
        "num_hidden_layers": d.layers,
        "num_attention_heads": d.heads,
        "num_key_value_heads": d.kv_heads,
        "intermediate_size": d.ffn,
        "max_position_embeddings": 512,
        "vocab_size": vocab,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_cache": True,
        "pad_token_id": pad_id,
        "eos_token_id": eos_id,
        "torch_dtype": dtype,
    }


def _qwen3_moe(d: Dimensions) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "head_dim": d.head_dim,
        "num_experts": d.experts,
        "num_experts_per_tok": d.experts_per_token,
        "moe_intermediate_size": d.expert_ffn,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "output_router_logits": False,
        "router_aux_loss_coef": 0.001,
    }


def _deepseek(d: Dimensions, q_lora_rank: int | None) -> dict[str, Any]:
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "num_key_value_heads": d.heads,
        "n_routed_experts": d.experts,
        "num_experts_per_tok": d.experts_per_token,
        "moe_intermediate_size": d.expert_ffn,
        "n_shared_experts": d.shared_experts,
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.446,
        "num_nextn_predict_layers": 0,
        "kv_lora_rank": d.kv_lora_rank,
        "q_lora_rank": q_lora_rank,
        "qk_nope_head_dim": d.qk_nope_head_dim,
        "qk_rope_head_dim": d.qk_rope_head_dim,
        "v_head_dim": d.v_head_dim,
    }


def _dense(d: Dimensions, architecture: str, model_type: str, **extra: Any) -> dict[str, Any]:
    return {"architectures": [architecture], "model_type": model_type, "head_dim": d.head_dim, **extra}


def model_config(
    architecture: Architecture,
    size: Size,
    vocab: int,
    pad_id: int,
    eos_id: int,
    dtype: str = "bfloat16",
    tied: bool = False,
) -> dict[str, Any]:
    """Return config.json of a small model.

    `moonlight` is deepseek-v3 without the low-rank query projection (q_lora_rank null), as Moonlight-16B-A3B is built.
    """
    d = DIMENSIONS[size]
    match architecture:
        case "qwen3":
            own = _dense(d, "Qwen3ForCausalLM", "qwen3")
        case "qwen2":
            own = _dense(d, "Qwen2ForCausalLM", "qwen2")
            own.pop("head_dim")
        case "llama":
            own = _dense(d, "LlamaForCausalLM", "llama", mlp_bias=False)
        case "qwen3-moe":
            own = _qwen3_moe(d)
        case "deepseek-v3":
            own = _deepseek(d, d.q_lora_rank)
        case "moonlight":
            own = _deepseek(d, None)
    return {**_common(d, vocab, dtype, pad_id, eos_id), **own, "tie_word_embeddings": tied}
