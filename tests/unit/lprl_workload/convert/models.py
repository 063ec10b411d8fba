"""Small real models on disk, and what our converter makes of them as transformers folders."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, DeepseekV3Config, PreTrainedModel, Qwen3Config, Qwen3MoeConfig

from lprl_api.model.formats import WeightFormat
from lprl_api.model.model_shape import Mla, ModelShape, Moe
from lprl_workload.convert.run import ShardReport, convert_shards
from lprl_workload.folder.model import read_contents
from lprl_workload.quant.config_json import quantization_config, strip_quantization
from lprl_workload.quant.scheme import fake_quantize
from lprl_workload.quant.select import Selection, expert_names, is_fused

COMMON = {"vocab_size": 64, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.1}
EXPERTS = Moe(experts=4, experts_per_token=2, expert_ffn=128)
CONFIGS = {
    "qwen3-tied": Qwen3Config(**COMMON, intermediate_size=256, num_key_value_heads=2, head_dim=32, tie_word_embeddings=True),
    "qwen3-moe": Qwen3MoeConfig(
        **COMMON,
        intermediate_size=256,
        num_key_value_heads=2,
        head_dim=32,
        moe_intermediate_size=128,
        num_experts=4,
        num_experts_per_tok=2,
    ),
    # Latent dimensions that no block of 128 divides: 96, 32 + 16 rows, columns of 32.
    "deepseek-v3": DeepseekV3Config(
        **COMMON,
        intermediate_size=256,
        num_key_value_heads=4,
        moe_intermediate_size=128,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_shared_experts=1,
        first_k_dense_replace=1,
        n_group=2,
        topk_group=1,
        q_lora_rank=96,
        kv_lora_rank=32,
        qk_nope_head_dim=32,
        qk_rope_head_dim=16,
        v_head_dim=32,
    ),
}
_SHAPE = {"layers": 2, "hidden": 128, "heads": 4, "kv_heads": 2, "head_dim": 32, "ffn": 256, "vocab": 64}
SHAPES = {
    "qwen3-tied": ModelShape(architecture="Qwen3ForCausalLM", family="qwen3", tied_embeddings=True, qk_norm=True, **_SHAPE),
    "qwen3-moe": ModelShape(
        architecture="Qwen3MoeForCausalLM", family="qwen3-moe", tied_embeddings=False, qk_norm=True, moe=EXPERTS, **_SHAPE
    ),
    "deepseek-v3": ModelShape(
        architecture="DeepseekV3ForCausalLM",
        family="deepseek-v3",
        tied_embeddings=False,
        moe=EXPERTS.model_copy(update={"shared_expert_ffn": 128, "dense_layers": 1}),
        mla=Mla(q_lora_rank=96, kv_lora_rank=32, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32),
        **_SHAPE,
    ),
}


def save(name: str, folder: Path, dtype: torch.dtype = torch.bfloat16, shard_size: str = "10GB") -> PreTrainedModel:
    """Write model `name` with random weights and return it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name], dtype=dtype)
    model.save_pretrained(folder, max_shard_size=shard_size)
    return model


def convert(source: Path, target: Path, fmt: WeightFormat, shape: ModelShape, threads: int = 1) -> list[ShardReport]:
    """Convert every shard and write config.json and the index, so that the folder loads."""
    index = read_contents(source)
    reports = convert_shards(source, target, fmt, shape, list(index.shards), threads, lambda _: None)
    config = strip_quantization(json.loads((source / "config.json").read_text()))
    section = quantization_config(fmt, Selection(fmt, shape), index.tensors)
    (target / "config.json").write_text(json.dumps(config | ({"quantization_config": section} if section else {})))
    weight_map = {name: report.output for report in reports for name in report.weight_map}
    (target / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return reports


def expected(model: PreTrainedModel, fmt: WeightFormat, shape: ModelShape) -> dict[str, Tensor]:
    """Return the state dict of `model` with every selected weight replaced by bf16 of what the quantizer makes of it."""
    selection, out = Selection(fmt, shape), {}
    for name, weight in model.state_dict().items():
        if not selection.takes(name):
            out[name] = weight
        elif name.endswith("gate_up_proj"):
            out[name] = torch.cat([fake_quantize(half, fmt) for half in weight.chunk(2, dim=1)], dim=1).to(torch.bfloat16)
        else:
            out[name] = fake_quantize(weight, fmt).to(torch.bfloat16)
    return out


def checkpoint_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the state dict under per-expert checkpoint names."""
    out = {}
    for name, weight in model.state_dict().items():
        if is_fused(name):
            parts = weight.chunk(2, dim=1) if name.endswith("gate_up_proj") else (weight,)
            out |= dict(zip(expert_names(name, len(weight)), (p[e] for e in range(len(weight)) for p in parts), strict=True))
        else:
            out[name] = weight
    return out


def load(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}
