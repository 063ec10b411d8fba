from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lprl_api.model.model_shape import Mla, ModelShape, Moe

COMMON: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 96}
DEEPSEEK: dict[str, Any] = COMMON | EXPERTS | {
    "num_key_value_heads": 4, "n_routed_experts": 6, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "n_shared_experts": 1,
    "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
}  # fmt: skip


def transformers_config(family: str) -> Any:
    match family:
        case "llama":
            return transformers.LlamaConfig(**COMMON)
        case "qwen2":
            return transformers.Qwen2Config(**COMMON, tie_word_embeddings=True)
        case "qwen3":
            return transformers.Qwen3Config(**COMMON, head_dim=16, tie_word_embeddings=True)
        case "qwen3-moe":
            return transformers.Qwen3MoeConfig(**COMMON, **EXPERTS, head_dim=16, num_experts=6, norm_topk_prob=True)
        case "deepseek-v3":
            return transformers.DeepseekV3Config(**DEEPSEEK, q_lora_rank=32)
        case "moonlight":
            return transformers.DeepseekV3Config(**DEEPSEEK, q_lora_rank=None)
    raise KeyError(family)


FAMILIES = ("llama", "qwen2", "qwen3", "qwen3-moe", "deepseek-v3", "moonlight")


def model_shape(family: str, config: Any) -> ModelShape:
    moe = mla = None
    if family in ("qwen3-moe", "deepseek-v3", "moonlight"):
        moe = Moe(experts=6, experts_per_token=2, expert_ffn=96)
    if family in ("deepseek-v3", "moonlight"):
        mla = Mla(q_lora_rank=config.q_lora_rank, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16)
    return ModelShape(
        architecture=config.__class__.__name__.replace("Config", "ForCausalLM"),
        family="deepseek-v3" if family == "moonlight" else family,
        layers=2, hidden=64, heads=4, kv_heads=config.num_key_value_heads, head_dim=16, ffn=160, vocab=60,
        tied_embeddings=config.tie_word_embeddings, moe=moe, mla=mla,
    )  # fmt: skip


class Source:
    """A folder transformers wrote (per-expert names, sharded), and the model it came from."""

    def __init__(self, folder: Path, family: str, shape: ModelShape) -> None:
        self.folder, self.family, self.shape = folder, family, shape

    def oracle(self) -> Any:
        """The model as transformers itself loads it, float32 arithmetic on the BF16 weights."""
        return transformers.AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32, attn_implementation="sdpa").eval()


def write_source(folder: Path, family: str) -> Source:
    torch.manual_seed(0)
    config = transformers_config(family)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.uniform_(-0.3, 0.3)
    model = model.to(torch.bfloat16)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.data = buffer.float() + 1e-4
    model.save_pretrained(folder, max_shard_size="100KB")
    return Source(folder, family, model_shape(family, config))


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("sources")
    return {family: write_source(root / family, family) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def source(request: pytest.FixtureRequest, sources: dict[str, Source]) -> Source:
    return sources[request.param]
