"""One family through trainer and torch engine: passes, cached steps, packed rows and gradients are the class's own."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tests.zoo.families import ALL, TABLES_INSIDE, Case
from tests.zoo.tiny import save, tiny_model
from torch import Tensor
from transformers import CONFIG_MAPPING

from lprl_api.model.formats import Bf16
from lprl_api.model.layouts.decoders import DECODERS
from lprl_api.model.layouts.planned import BUILDERS, planned_shape
from lprl_api.model.model_shape import ModelShape
from lprl_workload.data import SamplingParams
from lprl_workload.episode import TrainSample
from lprl_workload.hf.folder_weights import published_weights
from lprl_workload.hf.model import build_model
from lprl_workload.hf.served import ServedModel
from lprl_workload.hf.slots import weight_slots
from lprl_workload.rollout.generation import Row, StopRule
from lprl_workload.rollout.requests import Request
from lprl_workload.rollout.scheduler import Scheduler
from lprl_workload.train.batch import collate
from lprl_workload.train.policy import Policy

INSIDE = ("gemma3", "gemma4", "mistral3", "glm4v", "glm4v_moe", "qwen3_vl", "qwen3_vl_moe", "cohere2_vision", "aya_vision", "exaone4_5")
"""Whole models whose text_config is planned."""
CANDIDATES = (*(case for case in ALL if case.model_type in {*DECODERS, *BUILDERS, *INSIDE}), *TABLES_INSIDE)
"""What is planned can be trained, once it is proven."""
LAYERS = 4
"""One of each kind in the families that mix most kinds."""
SAID = {
    "sliding_window": 32, "attention_chunk_size": 32, "floor_scale": 16, "logits_scaling": 4.0, "embedding_multiplier": 2.0,
    "residual_multiplier": 0.5, "index_topk": 16, "index_n_heads": 16,
}  # fmt: skip
"""Key -> value, where a configuration has the key: defaults often switch off what published models switch on."""
CPU = torch.device("cpu")
CLOSE = {"rtol": 2e-5, "atol": 2e-5}
GRADIENT = 2e-4
"""Norm of a gradient's error, relative to the norm of the gradient."""
LONG = tuple(5 + n * 7 % 150 for n in range(45))
"""Longer than the window of the tiny models (32 tokens)."""
PROMPTS = ((7, 9, 11, 5), LONG, (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22), (8,), LONG[:33], LONG)
ANSWERS = (6, 40, 30, 3, 12, 25)


def thorough(case: Case) -> Case:
    """Return a family with what its configuration can say and its defaults leave out: every kind of layer, windows, scales."""
    text = CONFIG_MAPPING[case.model_type]().get_text_config()
    said = {key: value for key, value in SAID.items() if hasattr(text, key)}
    rope = getattr(text, "rope_parameters", None) or {}
    if "llama_4_scaling_beta" in rope:  # queries grow with every so many tokens
        said["rope_parameters"] = {**rope, "original_max_position_embeddings": 16}
    changes = {"num_hidden_layers": LAYERS, **said, **case.changes}
    if "layer_types" in changes:
        changes["layer_types"] = changes["layer_types"] * (LAYERS // len(changes["layer_types"]))
    return replace(case, changes=changes)


def published_names(source: Path) -> None:
    """Give a folder the names Kimi-K2.5 was published with: transformers 5.23 reads them and writes others."""
    stored = load_file(source / "model.safetensors")
    renamed = {name.replace("language_model.model.blocks.", "language_model.model.layers."): tensor for name, tensor in stored.items()}
    save_file(renamed, source / "model.safetensors", metadata={"format": "pt"})


def check_trained(given: Case, folder: Path) -> None:
    """Raise an error where a family is not computed as its class does it, or cannot be built."""
    case = thorough(given)
    source = save(tiny_model(case.model_type, case.changes), folder / "source")
    published_names(source)
    shape = planned_shape(json.loads((source / "config.json").read_text()))
    plain = own(case, source)
    served = ServedModel(source, Bf16(), shape, CPU)
    served.load_folder(source)
    check_passes(served, plain)
    check_cached(served.model, plain)
    check_gradients(filled(source, shape), plain)


def own(case: Case, source: Path) -> Any:
    """Return the class's own model of a folder in float32, attention and experts spelt out by the class itself."""
    model_class = type(tiny_model(case.model_type, case.changes))
    how = {"attn_implementation": "eager", "experts_implementation": "eager"}
    model = model_class.from_pretrained(source, dtype=torch.float32, local_files_only=True, **how)
    return model.eval()


def filled(source: Path, shape: ModelShape) -> Any:
    """Return the trainer's model of a folder."""
    model = build_model(source, shape, CPU)
    stored = dict(published_weights(source, shape))
    for slot in weight_slots(model, shape):
        slot.write(stored[slot.name])
    return model


def logprobs(plain: Any, ids: Any, temperature: float = 1.0) -> Tensor:
    """Return the class's log-probabilities [T - 1] of ids[1:], of one text by itself."""
    row = torch.tensor([list(map(int, ids))])
    found = (plain(input_ids=row, use_cache=False).logits[0, :-1].float() / temperature).log_softmax(-1)
    return found.gather(-1, row[0, 1:, None])[:, 0]


def as_text(name: str) -> str:
    """Return what the language model of a whole model calls a parameter when it is built by itself."""
    whole, inside, rest = name.partition("language_model.")
    return f"model.{rest.removeprefix('model.')}" if inside and "lm_head" not in rest else rest or whole


def check_passes(served: ServedModel, plain: Any) -> None:
    """A text by itself, without a cache."""
    for ids in (PROMPTS[2], LONG):
        torch.testing.assert_close(torch.tensor(served.score(ids)), logprobs(plain, ids).detach(), **CLOSE)


def check_cached(model: Any, plain: Any) -> None:
    """Rows of many lengths enter, are drawn token by token beside each other and leave."""
    rows = [
        Row(Request(str(n), np.array(prompt, np.int32), SamplingParams(1.0, 1.0, None, limit), n), limit, StopRule(frozenset(), (), str))
        for n, (prompt, limit) in enumerate(zip(PROMPTS, ANSWERS, strict=True))
    ]
    scheduler = Scheduler(model, CPU, 4, 10**9, 4)
    for row in rows:
        scheduler.add(row)
    while scheduler.running or scheduler.waiting:
        scheduler.step()
    for row in rows:
        want = logprobs(plain, [*row.request.prompt, *row.tokens]).detach()[-len(row.tokens) :]
        torch.testing.assert_close(torch.tensor(row.logprobs), want, **CLOSE)


def samples() -> Iterator[TrainSample]:
    """Yield prompts that several answers share, and others, short and longer than a window."""
    for number, (prompt, answer) in enumerate(
        ((PROMPTS[0], 5), (LONG, 7), (PROMPTS[3], 2), (PROMPTS[0], 38), (LONG, 3), (LONG[:40], 9), (PROMPTS[0], 4), (LONG, 7))
    ):
        drawn = [20 + (number * 31 + n * 13) % 130 for n in range(answer)]
        mask = np.array([False] * len(prompt) + [True] * answer, np.bool_)
        yield TrainSample(np.array((*prompt, *drawn), np.int32), mask, np.zeros(answer, np.float32), np.zeros(answer, np.float32))


def check_gradients(model: Any, plain: Any) -> None:
    """Samples laid end to end, prompts once: values and gradients are those of each sample by itself."""
    batch = collate(list(samples()), CPU)
    policy = Policy(model, recompute=False).train()
    logp = batch.spread(policy(batch, 0.7, entropy_gradient=False)[0])
    weight = torch.arange(1.0, logp.numel() + 1).view_as(logp) / 10
    (logp * weight).sum().backward()
    for row, one in enumerate(samples()):
        length = one.drawn_tokens
        want = logprobs(plain, one.ids, 0.7)[-length:]
        torch.testing.assert_close(logp[row, :length], want, **CLOSE)
        (want * weight[row, :length]).sum().backward()
    trained = {as_text(name): parameter for name, parameter in plain.named_parameters()}
    for name, parameter in model.named_parameters():
        wanted, found = trained[name].grad, parameter.grad
        assert (wanted is None) == (found is None) or not (wanted if found is None else found).any(), name
        if wanted is not None and found is not None:
            error = float((found - wanted).norm() / wanted.norm().clamp(min=1e-6))
            assert error < GRADIENT, f"{name}: gradient off by {error:.1e}"
