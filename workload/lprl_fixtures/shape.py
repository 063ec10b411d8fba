"""ModelShape of a generated model, from the config.json that architectures.model_config made."""

from typing import Any

from lprl_api.model.model_shape import Mla, ModelShape, Moe

FAMILIES = {"qwen3": "qwen3", "qwen3_moe": "qwen3-moe", "deepseek_v3": "deepseek-v3", "qwen2": "qwen2", "llama": "llama"}


def model_shape(config: dict[str, Any]) -> ModelShape:
    """Return the shape the contract's types describe a generated config with."""
    experts = config.get("num_experts") or config.get("n_routed_experts")
    latent = config.get("kv_lora_rank") is not None
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return ModelShape.model_validate(
        {
            "architecture": config["architectures"][0],
            "family": FAMILIES[config["model_type"]],
            "layers": config["num_hidden_layers"],
            "hidden": config["hidden_size"],
            "heads": config["num_attention_heads"],
            "kv_heads": config["num_key_value_heads"],
            "head_dim": config["qk_nope_head_dim"] + config["qk_rope_head_dim"] if latent else head_dim,
            "ffn": config["intermediate_size"],
            "vocab": config["vocab_size"],
            "tied_embeddings": config["tie_word_embeddings"],
            "qk_norm": config["model_type"].startswith("qwen3"),
            "attention_bias": config["model_type"] == "qwen2",
            "max_positions": config["max_position_embeddings"],
            "dtype": config["torch_dtype"],
            "moe": _moe(config, experts) if experts else None,
            "mla": Mla(**{name: config[name] for name in Mla.model_fields}) if latent else None,
            "mtp_layers": config.get("num_nextn_predict_layers", 0),
        }
    )


def _moe(config: dict[str, Any], experts: int) -> Moe:
    return Moe(
        experts=experts,
        experts_per_token=config["num_experts_per_tok"],
        expert_ffn=config["moe_intermediate_size"],
        shared_expert_ffn=config.get("n_shared_experts", 0) * config["moe_intermediate_size"],
        dense_layers=config.get("first_k_dense_replace", 0),
    )
