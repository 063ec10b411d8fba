"""The zoo: model types, what their tiny configuration needs beside small sizes, and what is expected of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Case:
    """One model type."""

    model_type: str
    models: str
    """What people know it as."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the (text) configuration."""
    way: Literal["class", "index"] = "class"
    unread: tuple[str, ...] = ()
    """Formats of which transformers itself reads no such model; ours are then read by the decoder alone."""
    refused: str = ""
    """Why its experts cannot be quantised, in the words of the refusal; empty where everything can."""


IN_OUT = "experts are stored [experts, in, out]"
ONE_TENSOR = "keeps a layer's experts in one tensor"

CHEAP: tuple[Case, ...] = (
    Case("mistral", "Mistral 7B, Nemo, Small"),
    Case("phi3", "Phi-3, Phi-4"),
    Case("gemma3_text", "Gemma 3, text"),
    Case("mixtral", "Mixtral"),
    Case("glm4_moe", "GLM-4.5, 4.6, 4.7"),
    Case("qwen3_5_moe_text", "Qwen3.5-MoE, text", {"layer_types": ["linear_attention", "full_attention"]}),
    Case("minimax_m2", "MiniMax-M2"),
    Case("gpt_oss", "gpt-oss", refused=IN_OUT),
)
"""A few seconds in all, one of each layout: packed, renamed, split experts, hybrid layers, transposed experts."""
RAGGED = ("fp8-block",)
"""Blocks that do not divide a matrix: docs/converting.md, in transformers."""
TABLES_INSIDE: tuple[Case, ...] = (Case("kimi_k25", "Kimi-K2.5, 2.6, 2.7"),)
"""Whole models whose text_config has a table: converted by that (tests/unit/.../test_multimodal.py), trained where proven."""
SHARED = {"num_hidden_layers": 4, "num_kv_shared_layers": 2, "use_double_wide_mlp": True}
"""As Gemma 4 E2B and E4B: late layers use the keys of earlier ones, each layer has inputs of its own."""
MIXED = {
    "enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 128, "hidden_size_per_layer_input": 0,
    "attention_k_eq_v": True, "num_global_key_value_heads": 1, "use_bidirectional_attention": "vision",
}  # fmt: skip
"""As Gemma 4 26B-A4B: experts beside the MLP, keys of full layers that are their values."""
VL = {"hidden_size": 256, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 128}
ALL: tuple[Case, ...] = (
    *CHEAP,
    Case("ministral3", "Ministral 3, text"),
    Case("mistral3", "Mistral Small 3.x, Ministral 3"),
    Case("gemma", "Gemma"),
    Case("gemma2", "Gemma 2"),
    Case("gemma3", "Gemma 3"),
    Case("gemma4_text", "Gemma 4, text", SHARED),
    Case("gemma4", "Gemma 4", MIXED, refused=ONE_TENSOR),
    Case("olmo", "OLMo"),
    Case("olmo2", "OLMo 2"),
    Case("olmo3", "OLMo 3"),
    Case("olmoe", "OLMoE"),
    Case("olmo_hybrid", "OLMo hybrid", unread=("int4-group",)),
    Case("smollm3", "SmolLM3"),
    Case("seed_oss", "Seed-OSS"),
    Case("glm", "GLM-4 9B"),
    Case("glm4", "GLM-4 0414"),
    Case("granite", "Granite 3"),
    Case("granitemoe", "Granite MoE", refused=ONE_TENSOR),
    Case("granitemoehybrid", "Granite 4", refused=ONE_TENSOR),
    Case("ernie4_5", "ERNIE 4.5, dense"),
    Case("ernie4_5_moe", "ERNIE 4.5 MoE"),
    Case("hunyuan_v1_dense", "Hunyuan, dense", {"head_dim": 32}),
    Case("hunyuan_v1_moe", "Hunyuan A13B", {"head_dim": 32}),
    Case("hy_v3", "HY-V3"),
    Case("hy_v4", "HY-V4", refused=ONE_TENSOR),
    Case("cohere", "Command R"),
    Case("cohere2", "Command A"),
    Case("cohere2_moe", "Command MoE"),
    Case("exaone4", "EXAONE 4"),
    Case("exaone_moe", "EXAONE MoE"),
    Case("nemotron", "Nemotron 4", {"head_dim": 32, "num_key_value_heads": 2}),
    Case("nemotron_h", "Nemotron-H, Nemotron 3", unread=RAGGED),
    Case("falcon_h1", "Falcon-H1", unread=RAGGED),
    Case("qwen2_moe", "Qwen1.5-MoE, Qwen2-MoE"),
    Case("qwen3_next", "Qwen3-Next, Qwen3-Coder-Next"),
    Case("qwen3_5_text", "Qwen3.5, Qwen3.6, text"),
    Case("qwen3_5", "Qwen3.5, Qwen3.6"),
    Case("qwen3_5_moe", "Qwen3.5-MoE, Qwen3.6-MoE"),
    Case("qwen2_vl", "Qwen2-VL", VL),
    Case("qwen2_5_vl", "Qwen2.5-VL", VL),
    Case("qwen3_vl", "Qwen3-VL"),
    Case("qwen3_vl_moe", "Qwen3-VL-MoE", refused=ONE_TENSOR),
    Case("glm4v", "GLM-4.1V", VL | {"num_attention_heads": 4, "head_dim": 64}),
    Case("glm4v_moe", "GLM-4.5V, 4.6V", VL),
    Case("glm4_moe_lite", "GLM-4.7-Flash"),
    Case("glm_moe_dsa", "GLM-5.x", {"indexer_types": ["full", "shared", "full", "shared"]}),
    Case("deepseek_v2", "DeepSeek-V2", {"num_experts_per_tok": 2}),
    Case("deepseek_v32", "DeepSeek-V3.2"),
    Case("deepseek_v4", "DeepSeek-V4"),
    Case(
        "kimi_linear",
        "Kimi-Linear",
        {"num_experts_per_token": 2, "num_experts_per_tok": 2, "linear_num_heads": 4, "linear_head_dim": 32},
        unread=("int4-group",),
    ),
    Case("llama4_text", "Llama 4, text", refused=IN_OUT),
    Case("minimax", "MiniMax-M1, MiniMax-Text"),
    Case("mistral4", "Mistral 4, text", {"qk_nope_head_dim": 64, "qk_rope_head_dim": 64, "head_dim": 128}, refused=ONE_TENSOR),
    Case("step3p7", "Step-3.7", {"swiglu_limits": [None, 0.5] * 2, "swiglu_limits_shared": [0.5, None] * 2}, refused=ONE_TENSOR),
    Case("phimoe", "Phi-3.5-MoE"),
    Case("solar_open", "Solar Open"),
    Case("dots1", "dots.llm1", {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1}),
    Case("laguna", "Laguna", {"num_attention_heads_per_layer": [4, 4]}),
    Case("afmoe", "AFMoE (Trinity)"),
    Case("lfm2", "LFM2"),
    Case("lfm3", "LFM3"),
    Case("mimo_v2_flash", "MiMo-V2-Flash"),
    Case("arcee", "Arcee"),
    Case("helium", "Helium"),
    Case("starcoder2", "StarCoder2"),
    Case("stablelm", "StableLM 2"),
    Case("apertus", "Apertus"),
    Case("flex_olmo", "FlexOlmo"),
    Case("cwm", "CWM"),
    Case("jamba", "Jamba"),
    Case("bamba", "Bamba", unread=RAGGED),
    Case("vaultgemma", "VaultGemma"),
    Case("gpt_neox", "Pythia, GPT-NeoX"),
    Case("persimmon", "Persimmon"),
    Case("axk1", "A.X-K1"),
    Case("axk2", "A.X-K2"),
    Case("bitnet", "BitNet, BF16"),
    Case("bloom", "BLOOM"),
    Case("opt", "OPT"),
    Case("phi", "Phi-1, Phi-2"),
    Case("nanochat", "nanochat"),
    Case("doge", "Doge"),
    Case("diffllama", "DiffLlama"),
    Case("exaone4_5", "EXAONE 4.5"),
    Case("aya_vision", "Aya Vision"),
    Case("cohere2_vision", "Command A Vision"),
    Case("lfm2_vl", "LFM2-VL"),
    Case("mllama", "Llama 3.2 Vision"),
    Case("paligemma", "PaliGemma"),
)
