"""Random weights, written shard by shard: memory holds one shard, and every tensor depends on (seed, name) only."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lprl_fixtures.tensors import TensorSpec

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def initial_tensor(spec: TensorSpec, dtype: torch.dtype, seed: int, std: float) -> Tensor:
    """Draw one tensor; equal (seed, name, shape, std) give equal values whatever else is generated."""
    stored = torch.float32 if spec.float32 else dtype
    if spec.init == "ones":
        return torch.ones(spec.shape, dtype=stored)
    if spec.init == "zeros":
        return torch.zeros(spec.shape, dtype=stored)
    digest = hashlib.sha256(f"{seed}:{spec.name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.empty(spec.shape, dtype=torch.float32).normal_(0.0, std, generator=generator).to(stored)


def split(specs: Iterable[TensorSpec], shards: int) -> list[list[TensorSpec]]:
    """Cut the tensors, in order, into `shards` non-empty runs of about equal element counts."""
    items = list(specs)
    shards = min(shards, len(items))
    total = sum(spec.numel for spec in items)
    parts: list[list[TensorSpec]] = [[]]
    done = 0
    for position, spec in enumerate(items):
        must_cut = len(items) - position == shards - len(parts)
        if parts[-1] and len(parts) < shards and (must_cut or done >= total * len(parts) / shards):
            parts.append([])
        parts[-1].append(spec)
        done += spec.numel
    return parts


def write_weights(folder: Path, specs: Iterable[TensorSpec], dtype: str, shards: int, seed: int, std: float) -> int:
    """Write model.safetensors, or model-0000i-of-0000n.safetensors with an index; returns the bytes of all tensors."""
    parts = split(specs, shards)
    weight_map: dict[str, str] = {}
    total_size = 0
    for number, part in enumerate(parts, start=1):
        name = "model.safetensors" if len(parts) == 1 else f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        tensors = {spec.name: initial_tensor(spec, DTYPES[dtype], seed, std) for spec in part}
        save_file(tensors, str(folder / name), metadata={"format": "pt"})
        total_size += sum(t.numel() * t.element_size() for t in tensors.values())
        weight_map.update(dict.fromkeys(tensors, name))
    if len(parts) > 1:
        index = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return total_size
