"""What a checkpoint must hold, against the transformers class itself: names and shapes, for every family and variant."""

from typing import Any

import pytest
import torch
from tests.zoo.tiny import tiny_config
from transformers import AutoConfig, AutoModelForCausalLM

from lprl_api.model.checkpoint_tensors import checkpoint_tensors, fused_experts
from lprl_api.model.layouts.planned import planned_shape
from lprl_api.model.weights import parameters

SMALL: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 24, "tie_word_embeddings": False,
}  # fmt: skip
MOE = SMALL | {"model_type": "qwen3_moe", "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
MLA = {k: v for k, v in SMALL.items() if k != "head_dim"} | {
    "model_type": "deepseek_v3", "num_key_value_heads": 4, "n_routed_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 48,
    "n_shared_experts": 2, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "q_lora_rank": 40, "kv_lora_rank": 32,
    "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 20,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": SMALL | {"model_type": "llama"},
    "llama-tied": SMALL | {"model_type": "llama", "tie_word_embeddings": True},
    "llama-attention-bias": SMALL | {"model_type": "llama", "attention_bias": True},
    "llama-mlp-bias": SMALL | {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "qwen2": {k: v for k, v in SMALL.items() if k != "head_dim"} | {"model_type": "qwen2"},
    "qwen2-tied": {k: v for k, v in SMALL.items() if k != "head_dim"} | {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": SMALL | {"model_type": "qwen3"},
    "qwen3-tied": SMALL | {"model_type": "qwen3", "tie_word_embeddings": True},
    "qwen3-bias": SMALL | {"model_type": "qwen3", "attention_bias": True},
    "qwen3-moe": MOE,
    "qwen3-moe-bias-tied": MOE | {"attention_bias": True, "tie_word_embeddings": True},
    "deepseek-v3": MLA,
    "deepseek-v3-no-q-lora": MLA | {"q_lora_rank": None},
    "deepseek-v3-bias": MLA | {"attention_bias": True},
    "deepseek-v3-one-shared": MLA | {"n_shared_experts": 1},
    "deepseek-v3-no-dense": MLA | {"first_k_dense_replace": 0},
    "deepseek-v3-all-dense": MLA | {"first_k_dense_replace": 3},
    "deepseek-v3-tied": MLA | {"tie_word_embeddings": True},
}
BY_CLASS = ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "glm4_moe", "glm4_moe_lite", "deepseek_v32", "glm_moe_dsa")
"""Families that trainers read by the planned shape's names."""
CONFIGS |= {name: tiny_config(name, {"num_hidden_layers": 4}).to_dict() for name in BY_CLASS}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_checkpoint_holds_what_the_class_of_transformers_holds(name: str) -> None:
    document = CONFIGS[name]
    config = AutoConfig.for_model(**document)
    with torch.device("meta"):
        state = AutoModelForCausalLM.from_config(config).state_dict()
    shape = planned_shape(document)
    fused = {leaf: tuple(wanted) for leaf, wanted in fused_experts(shape).items()}
    theirs: dict[str, tuple[int, ...]] = {}
    for key, tensor in state.items():
        base, _, leaf = key.rpartition(".")
        if base.endswith(".experts"):
            assert tuple(tensor.shape) == fused[leaf], key
            rows = tensor.shape[1] // (2 if leaf == "gate_up_proj" else 1)
            parts = ("gate_proj", "up_proj") if leaf == "gate_up_proj" else ("down_proj",)
            theirs |= {f"{base}.{e}.{part}.weight": (rows, tensor.shape[2]) for e in range(tensor.shape[0]) for part in parts}
        elif not (shape.tied_embeddings and key == "lm_head.weight"):
            theirs[key] = tuple(tensor.shape)
    assert dict(checkpoint_tensors(shape)) == theirs
    assert parameters(shape) == sum(torch.Size(wanted).numel() for wanted in theirs.values())
