"""A key that config.json leaves out stands for what transformers' class of the family takes for it, and so every engine."""

from typing import Any

import pytest
import transformers

from lprl_api.errors import UserError
from lprl_api.model.hf_config import shape_from_config

CLASSES: dict[str, Any] = {
    "LlamaForCausalLM": transformers.LlamaConfig,
    "Qwen2ForCausalLM": transformers.Qwen2Config,
    "Qwen3ForCausalLM": transformers.Qwen3Config,
    "Qwen3MoeForCausalLM": transformers.Qwen3MoeConfig,
    "DeepseekV3ForCausalLM": transformers.DeepseekV3Config,
}
WIDTHS = {"hidden_size": 1024, "num_attention_heads": 64, "max_position_embeddings": 777, "num_key_value_heads": 16, "head_dim": 32}
LATENT = {"q_lora_rank": 96, "n_shared_experts": 2, "first_k_dense_replace": 2}


def of_class(config: Any) -> dict[str, Any]:
    """What the class says, in the words of ModelShape."""
    latent = config.model_type == "deepseek_v3"
    plain = {
        "kv_heads": config.num_key_value_heads,
        "head_dim": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
    }
    moe = {"shared": config.n_shared_experts, "dense": config.first_k_dense_replace, "rank": config.q_lora_rank} if latent else plain
    return {"positions": config.max_position_embeddings, "tied": config.tie_word_embeddings} | moe


def ours(document: dict[str, Any]) -> dict[str, Any]:
    shape = shape_from_config(document)
    known = {"positions": shape.max_positions, "tied": shape.tied_embeddings}
    if shape.mla is None or shape.moe is None:
        return known | {"kv_heads": shape.kv_heads, "head_dim": shape.head_dim}
    shared = shape.moe.shared_expert_ffn // shape.moe.expert_ffn
    return known | {"shared": shared, "dense": shape.moe.dense_layers, "rank": shape.mla.q_lora_rank}


@pytest.mark.parametrize("architecture", CLASSES)
def test_a_missing_key_is_what_the_class_takes_for_it(architecture: str) -> None:
    config_class = CLASSES[architecture]
    latent = architecture.startswith("Deepseek")
    changes = (WIDTHS | LATENT | {"num_key_value_heads": 64, "head_dim": 64}) if latent else WIDTHS
    document = config_class(**changes).to_dict() | {"architectures": [architecture]}
    assert ours(document) == of_class(config_class.from_dict(document))
    for key in (*WIDTHS, *(LATENT if latent else ()), "tie_word_embeddings"):
        left = {name: value for name, value in document.items() if name != key}
        if key not in ("hidden_size", "num_attention_heads"):  # never left out: refused by name
            assert ours(left) == of_class(config_class.from_dict(left)), key


def test_a_default_that_does_not_fit_is_told_as_a_missing_key() -> None:
    document = transformers.Qwen2Config(num_attention_heads=28, hidden_size=3584).to_dict()
    del document["num_key_value_heads"]
    with pytest.raises(UserError, match=r"num_key_value_heads: missing; needs a divisor of num_attention_heads \(28\)"):
        shape_from_config(document)
