"""Models of real shapes with random weights: config.json, tokenizer, and served tensors made where they are needed."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lprl_api.model.formats import Bf16, Fp8Block, Int4Group, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.spec.precision import Scope
from lprl_fixtures.shape import model_shape
from lprl_fixtures.tensors import tensor_specs
from lprl_fixtures.tokenizer import build_tokenizer, write_tokenizer
from lprl_workload.data import NamedTensor
from lprl_workload.quant.scheme import quantize
from lprl_workload.quant.select import Selection

_COMMON: dict[str, Any] = {
    "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
    "tie_word_embeddings": False, "hidden_act": "silu", "attention_bias": False, "attention_dropout": 0.0, "torch_dtype": "bfloat16",
    "use_cache": True, "use_sliding_window": False,
}  # fmt: skip
_DENSE = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
_MOE = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "norm_topk_prob": True, "decoder_sparse_step": 1,
    "mlp_only_layers": [], "output_router_logits": False, "router_aux_loss_coef": 0.001,
}  # fmt: skip


def _sizes(layers: int, hidden: int, heads: int, kv_heads: int, ffn: int) -> dict[str, int]:
    named = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size")
    return dict(zip(named, (layers, hidden, heads, kv_heads, ffn), strict=True))


def _experts(count: int, used: int, ffn: int) -> dict[str, int]:
    return {"num_experts": count, "num_experts_per_tok": used, "moe_intermediate_size": ffn}


SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-8b": _COMMON | _DENSE | _sizes(36, 4096, 32, 8, 12288),
    "qwen3-30b-a3b": _COMMON | _MOE | _sizes(48, 2048, 32, 4, 6144) | _experts(128, 8, 768),
    # What a GPU's memory is planned for with: large enough that its states weigh, and a vocabulary of the tasks.
    "medium": _COMMON | _DENSE | _sizes(16, 2048, 16, 8, 6144) | {"vocab_size": 128, "max_position_embeddings": 512},
    # Widths of which every kernel has a variant, and little of everything else: for tests and learning.
    "small": _COMMON | _DENSE | _sizes(2, 2048, 4, 4, 512) | {"vocab_size": 128, "max_position_embeddings": 512},
    "small-moe": _COMMON | _MOE | _sizes(2, 2048, 4, 4, 512) | _experts(8, 2, 256) | {"vocab_size": 128, "max_position_embeddings": 512},
    # For the CPU, where these scripts are tried.
    "tiny": _COMMON | _DENSE | _sizes(2, 128, 2, 2, 256) | {"head_dim": 64, "vocab_size": 128, "max_position_embeddings": 2048},
    "tiny-moe": _COMMON | _MOE | _sizes(2, 128, 2, 2, 256) | _experts(4, 2, 128)
    | {"head_dim": 64, "vocab_size": 128, "max_position_embeddings": 2048},
}  # fmt: skip
SPREAD = 0.02


def write_shape(folder: Path, name: str) -> tuple[dict[str, Any], ModelShape]:
    """Write the small files of a model of shape `name`; returns its config and shape."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(folder, build_tokenizer)
    config = SHAPES[name] | {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": tokenizer.eos_token_id}))
    return config, model_shape(config)


def format_of(name: str, shape: ModelShape) -> WeightFormat:
    """Return a format by its short name: INT4 of experts alone where there are some."""
    scope = Scope.ROUTED_EXPERTS if shape.moe else Scope.ALL_LINEAR
    return {"bf16": Bf16(), "fp8": Fp8Block(), "int4": Int4Group(group_size=128, scope=scope)}[name]


def served(
    config: dict[str, Any], fmt: WeightFormat, shape: ModelShape, device: str, seed: int, spread: float = SPREAD, alike: bool = False
) -> Iterator[NamedTensor]:
    """Yield random served tensors, each made on `device` when it is asked for; another seed, another model.

    `alike`: all layers, and all experts of one, have the same values, which are made once (48 layers of 128 experts take a minute).
    """
    generator, selection = torch.Generator(device).manual_seed(seed), Selection(fmt, shape)
    made: dict[str, list[tuple[str, torch.Tensor]]] = {}
    for spec in tensor_specs(config, False):
        kind, module = re.sub(r"\.\d+\.", ".N.", spec.name), spec.name.rpartition(".")[0]
        if alike and kind in made:
            yield from (NamedTensor(module + rest, value) for rest, value in made[kind])
            continue
        weight = torch.randn(spec.shape, generator=generator, device=device, dtype=torch.float32) * spread
        tensor = (weight + (spec.init == "ones")).to(torch.bfloat16)
        taken = not isinstance(fmt, Bf16) and selection.selects(spec.name, spec.shape)
        parts = quantize(spec.name, tensor, fmt) if taken else {spec.name: tensor}
        found = [NamedTensor(name, value.to(device)) for name, value in parts.items()]
        made[kind] = [(item.name.removeprefix(module), item.tensor) for item in found] if alike else []
        yield from found
