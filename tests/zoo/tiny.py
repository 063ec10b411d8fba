"""Tiny models of true transformers classes: a family's default config.json with its size keys made small, random BF16 weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

SIZES: Mapping[str, int] = {
    "vocab_size": 160,
    "hidden_size": 128,
    "intermediate_size": 256,
    "intermediate_size_mlp": 256,
    "moe_intermediate_size": 128,
    "expert_ffn_hidden_size": 128,
    "ffn_hidden_size": 256,
    "shared_expert_intermediate_size": 128,
    "moe_shared_expert_intermediate_size": 128,
    "moe_latent_size": 128,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 2,
    "head_dim": 32,
    "global_head_dim": 32,
    "swa_head_dim": 32,
    "swa_v_head_dim": 32,
    "v_head_dim": 32,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 128,
    "kv_lora_rank": 128,
    "q_lora_rank": 128,
    "o_lora_rank": 128,
    "index_head_dim": 128,
    "index_n_heads": 2,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "top_k": 2,
    "moe_topk": 2,
    "n_group": 1,
    "topk_group": 1,
    "num_expert_group": 1,
    "first_k_dense_replace": 1,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "mamba_d_state": 16,
    "mamba_n_heads": 8,
    "mamba_d_head": 32,
    "mamba_d_ssm": 256,
    "mamba_num_heads": 8,
    "mamba_head_dim": 32,
    "mamba_n_groups": 1,
    "n_groups": 1,
    "ssm_state_size": 16,
    "max_position_embeddings": 512,
    "sliding_window": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_size_per_layer_input": 128,
    "vocab_size_per_layer_input": 160,
    "depth": 2,
    "num_heads": 4,
    "embed_dim": 64,
    "out_hidden_size": 128,
    "image_size": 28,
    "patch_size": 14,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 128,
    "d_model": 64,
    "num_mel_bins": 16,
}
"""Size key -> value; keys a config does not have are left alone. 128 is the least that the rule quantises."""
TOWER = {"hidden_size": 64, "intermediate_size": 128, "mlp_ratio": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32}
"""Of what is no language model: towers stay below what the rule quantises nowhere, so that a wrong selection shows."""
PER_LAYER = ("layer_types", "mlp_layer_types", "attention_types", "layers_block_type", "block_type", "moe_layer_freq", "layer_type_list")

FROM_THE_START = ("gemma4_text", "gemma4")
"""Types that say of each layer how wide its heads are, in words made of the numbers they are built with: made small from the start."""


def shrink(config: Any, changes: Mapping[str, Any], text: bool = True) -> Any:
    """Make a configuration small, in place, its sections too."""
    sizes = dict(SIZES) | ({} if text else TOWER) | dict(changes if text else {})
    if getattr(config, "kv_lora_rank", None) and "num_key_value_heads" not in changes:
        sizes |= {"num_key_value_heads": sizes["num_attention_heads"], "head_dim": sizes["qk_rope_head_dim"]}
    layers = sizes["num_hidden_layers"]
    for key, value in list(vars(config).items()):
        if hasattr(value, "to_dict"):
            shrink(value, changes, text=key in ("text_config", "thinker_config", "llm_config", "language_config"))
        elif key in sizes and value is not None and not isinstance(value, (list, tuple, dict)):
            setattr(config, key, float(sizes[key]) if isinstance(value, float) else sizes[key])
        elif key in PER_LAYER and isinstance(value, (list, tuple)) and key not in changes:
            setattr(config, key, spread(list(value), layers))
    for key, value in changes.items():
        if text and not hasattr(config, "text_config"):
            setattr(config, key, value)
    return config


def spread(kinds: list[Any], layers: int) -> list[Any]:
    """Return as many kinds of layers as there are layers, each kind at least once where there is room."""
    distinct = list(dict.fromkeys(kinds))
    return [distinct[i % len(distinct)] for i in range(layers)]


def tiny_config(model_type: str, changes: Mapping[str, Any]) -> Any:
    """Return a small configuration of a model type."""
    from transformers import CONFIG_MAPPING

    torch.manual_seed(0)
    return shrink(CONFIG_MAPPING[model_type](**_given(model_type, changes)), changes)


def _given(model_type: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a configuration is built with: nothing, where it can be made small afterwards."""
    if model_type not in FROM_THE_START:
        return {}
    layers = int(changes.get("num_hidden_layers", SIZES["num_hidden_layers"]))
    kinds = spread(["sliding_attention", "full_attention"], layers)
    text = {"num_hidden_layers": layers, "layer_types": kinds, "head_dim": 32, "global_head_dim": 64, **changes}
    return text if model_type.endswith("_text") else {"text_config": text, "vision_config": {}}


def tiny_model(model_type: str, changes: Mapping[str, Any]) -> Any:
    """Return a small model of a model type with weights that are no zeros, BF16, on the CPU."""
    from lprl_workload.folder.class_model import class_of

    config = tiny_config(model_type, changes)
    model = class_of({}, config)(config).to(torch.bfloat16).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.05
            parameter.copy_((noise + (1.0 if parameter.ndim == 1 else 0.0)).to(parameter.dtype))
    return model


def save(model: Any, folder: Path) -> Path:
    """Save a model as transformers does, one shard."""
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = [type(model).__name__]
    (folder / "config.json").write_text(json.dumps(config))
    return folder
