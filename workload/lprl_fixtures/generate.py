"""Write a model folder and a task: the two things a user brings."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lprl_fixtures.architectures import Architecture, Size, model_config
from lprl_fixtures.tasks import Task, write_task
from lprl_fixtures.tensors import tensor_specs
from lprl_fixtures.tokenizer import build_tokenizer, write_tokenizer
from lprl_fixtures.weights import write_weights

SHARD_BYTES = 256 * 1024 * 1024
"""Size of a shard when the number is not given; one shard is held in memory while writing."""
BYTES_PER_ELEMENT = {"bfloat16": 2, "float16": 2, "float32": 4}
BIG_VOCABULARY = 32000
"""Vocabulary of the benchmark sizes: an embedding of realistic weight (the tokenizer covers its first rows)."""


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What model to write."""

    architecture: Architecture = "qwen3"
    size: Size = "demo"
    dtype: str = "bfloat16"
    shards: int | None = None
    """Number of safetensors files; default one per 256 MiB."""
    seed: int = 0
    tied: bool = False
    fused_experts: bool = False
    """Store experts as 3-D tensors (experts.gate_up_proj, experts.down_proj) instead of one by one."""


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What task to write."""

    task: Task = "find"
    seed: int = 0
    train: int = 4096
    heldout: int = 256
    chat: bool = True
    shuffle_labels: bool = False


def generate_model(folder: Path, options: ModelOptions, tokenizer_of: Callable[[], Any] = build_tokenizer) -> int:
    """Write a Hugging Face model folder with random weights; returns the bytes of its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(folder, tokenizer_of)
    vocab = BIG_VOCABULARY if options.size == "2gb" else len(tokenizer)
    pad_id, eos_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    config = model_config(options.architecture, options.size, vocab, pad_id, eos_id, options.dtype, options.tied)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    generation = {"eos_token_id": eos_id, "pad_token_id": pad_id, "do_sample": True, "temperature": 1.0}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    specs = list(tensor_specs(config, options.fused_experts))
    total = sum(spec.numel for spec in specs) * BYTES_PER_ELEMENT[options.dtype]
    shards = options.shards or math.ceil(total / SHARD_BYTES)
    return write_weights(folder, specs, options.dtype, shards, options.seed, config["initializer_range"])


def generate_task(folder: Path, options: TaskOptions) -> None:
    """Write train and held-out prompts."""
    folder.mkdir(parents=True, exist_ok=True)
    write_task(folder, options.task, options.seed, options.train, options.heldout, options.chat, options.shuffle_labels)
