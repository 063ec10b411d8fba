"""Writes a random BF16 model of more than 2 GB: four mixture-of-experts layers, per-expert tensors, sharded.

python benchmarks/convert/generate.py FOLDER [--layers 4] [--experts 64]
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from lprl_api.model.model_shape import ModelShape, Moe

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FFN, EXPERT_FFN, VOCAB = 2048, 32, 4, 128, 6144, 768, 32000
SHARD_BYTES = 600_000_000


def model_shape(layers: int, experts: int) -> ModelShape:
    """Return the shape of the generated model."""
    return ModelShape(
        architecture="Qwen3MoeForCausalLM",
        family="qwen3-moe",
        layers=layers,
        hidden=HIDDEN,
        heads=HEADS,
        kv_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        ffn=FFN,
        vocab=VOCAB,
        tied_embeddings=False,
        qk_norm=True,
        moe=Moe(experts=experts, experts_per_token=8, expert_ffn=EXPERT_FFN),
    )


def config(layers: int, experts: int) -> dict[str, object]:
    """Return its config.json."""
    return {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_hidden_layers": layers, "hidden_size": HIDDEN,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "intermediate_size": FFN, "vocab_size": VOCAB,
        "num_experts": experts, "num_experts_per_tok": 8, "moe_intermediate_size": EXPERT_FFN, "decoder_sparse_step": 1,
        "mlp_only_layers": [], "norm_topk_prob": True, "tie_word_embeddings": False, "hidden_act": "silu", "attention_bias": False,
        "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "max_position_embeddings": 4096, "torch_dtype": "bfloat16",
    }  # fmt: skip


def tensors(layers: int, experts: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield (name, shape) of every tensor."""
    yield "model.embed_tokens.weight", (VOCAB, HIDDEN)
    for layer in range(layers):
        x = f"model.layers.{layer}"
        yield f"{x}.input_layernorm.weight", (HIDDEN,)
        yield f"{x}.self_attn.q_proj.weight", (HEADS * HEAD_DIM, HIDDEN)
        yield f"{x}.self_attn.k_proj.weight", (KV_HEADS * HEAD_DIM, HIDDEN)
        yield f"{x}.self_attn.v_proj.weight", (KV_HEADS * HEAD_DIM, HIDDEN)
        yield f"{x}.self_attn.o_proj.weight", (HIDDEN, HEADS * HEAD_DIM)
        yield f"{x}.post_attention_layernorm.weight", (HIDDEN,)
        yield f"{x}.self_attn.q_norm.weight", (HEAD_DIM,)
        yield f"{x}.self_attn.k_norm.weight", (HEAD_DIM,)
        yield f"{x}.mlp.gate.weight", (experts, HIDDEN)
        for prefix in (f"{x}.mlp.experts.{e}" for e in range(experts)):
            yield f"{prefix}.gate_proj.weight", (EXPERT_FFN, HIDDEN)
            yield f"{prefix}.up_proj.weight", (EXPERT_FFN, HIDDEN)
            yield f"{prefix}.down_proj.weight", (HIDDEN, EXPERT_FFN)
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCAB, HIDDEN)


def generate(folder: Path, layers: int, experts: int) -> int:
    """Write the model and return its bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    weight_map: dict[str, str] = {}
    total = shard_number = 0
    shard: dict[str, torch.Tensor] = {}

    def flush() -> None:
        nonlocal shard, shard_number
        shard_number += 1
        name = f"model-{shard_number:05d}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shard, name))
        shard = {}

    for name, shape in tensors(layers, experts):
        weight = torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)
        if sum(t.nbytes for t in shard.values()) + weight.nbytes > SHARD_BYTES:
            flush()
        shard[name] = weight
        total += weight.nbytes
    flush()
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config(layers, experts)))
    (folder / "shape.json").write_text(model_shape(layers, experts).model_dump_json())
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--experts", type=int, default=64)
    args = parser.parse_args()
    print(f"{generate(args.folder, args.layers, args.experts) / 1e9:.2f} GB in {args.folder}")
