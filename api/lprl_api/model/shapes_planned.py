"""Known shapes of models that can be planned before anything here trains them: their config.json, as published, in what counts."""

from typing import Any

from lprl_api.model.layouts.planned import planned_shape
from lprl_api.model.model_shape import ModelShape

Json = dict[str, Any]


def _vision(hidden: int) -> Json:
    return {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "out_hidden_size": hidden, "num_position_embeddings": 2304}


def _qwen3_5(kind: str, hidden: int, layers: int, heads: int, kv: int, **mlp: int) -> Json:
    text = {
        "model_type": f"{kind}_text",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": 256,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "vocab_size": 248320,
        "max_position_embeddings": 262144,
        "mtp_num_hidden_layers": 1,
        **mlp,
    }
    name = "Qwen3_5MoeForConditionalGeneration" if kind.endswith("moe") else "Qwen3_5ForConditionalGeneration"
    return {
        "architectures": [name],
        "model_type": kind,
        "tie_word_embeddings": False,
        "text_config": text,
        "vision_config": _vision(hidden),
    }


_GLM: Json = {"first_k_dense_replace": 1, "n_shared_experts": 1, "max_position_embeddings": 202752, "num_nextn_predict_layers": 1}
_CONFIGS: dict[str, Json] = {
    # huggingface.co/Qwen/Qwen3.5-9B, Qwen3.5-35B-A3B
    "qwen3.5-9b": _qwen3_5("qwen3_5", 4096, 32, 16, 4, intermediate_size=12288),
    "qwen3.5-35b-a3b": _qwen3_5(
        "qwen3_5_moe",
        2048,
        40,
        16,
        2,
        num_experts=256,
        num_experts_per_tok=8,
        moe_intermediate_size=512,
        shared_expert_intermediate_size=512,
    ),
    # huggingface.co/zai-org/GLM-4.7-Flash, GLM-4.6
    "glm-4.7-flash": {
        **_GLM,
        "architectures": ["Glm4MoeLiteForCausalLM"],
        "model_type": "glm4_moe_lite",
        "hidden_size": 2048,
        "intermediate_size": 10240,
        "moe_intermediate_size": 1536,
        "num_hidden_layers": 47,
        "num_attention_heads": 20,
        "n_routed_experts": 64,
        "num_experts_per_tok": 4,
        "q_lora_rank": 768,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 192,
        "qk_rope_head_dim": 64,
        "v_head_dim": 256,
        "vocab_size": 154880,
    },
    "glm-4.6": {
        **_GLM,
        "architectures": ["Glm4MoeForCausalLM"],
        "model_type": "glm4_moe",
        "first_k_dense_replace": 3,
        "attention_bias": True,
        "use_qk_norm": True,
        "hidden_size": 5120,
        "intermediate_size": 12288,
        "moe_intermediate_size": 1536,
        "num_hidden_layers": 92,
        "num_attention_heads": 96,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "n_routed_experts": 160,
        "num_experts_per_tok": 8,
        "vocab_size": 151552,
    },
    # huggingface.co/moonshotai/Kimi-K2.5
    "kimi-k2.5": {
        "architectures": ["KimiK25ForConditionalGeneration"],
        "model_type": "kimi_k25",
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": "kimi_k2",
            "hidden_size": 7168,
            "intermediate_size": 18432,
            "moe_intermediate_size": 2048,
            "num_hidden_layers": 61,
            "num_attention_heads": 64,
            "n_routed_experts": 384,
            "num_experts_per_tok": 8,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "q_lora_rank": 1536,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "n_group": 1,
            "topk_group": 1,
            "scoring_func": "sigmoid",
            "vocab_size": 163840,
            "max_position_embeddings": 262144,
        },
        "vision_config": {"vt_hidden_size": 1152, "vt_intermediate_size": 4304, "vt_num_hidden_layers": 27, "mm_hidden_size": 1152},
    },
}
PLANNED_SHAPES: dict[str, ModelShape] = {name: planned_shape(config) for name, config in _CONFIGS.items()}
