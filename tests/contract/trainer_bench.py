"""Trainers on small models, and what the contract's tests ask of them: the torch trainer, or the one that $LPRL_CONTRACT_TRAINER names."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Int4Group, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.spec.precision import Scope
from lprl_api.wire.runconfig import RunConfig
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_fixtures.pushes import whole_weights
from lprl_workload.config import RankInfo, ResolvedPaths
from lprl_workload.episode import TrainSample, token_ids
from lprl_workload.folder.config import read_shape
from lprl_workload.hf.slots import weight_slots
from lprl_workload.launch.backends import trainer_class
from lprl_workload.launch.parts import in_order
from lprl_workload.quant.select import Selection
from lprl_workload.sync.manifest import ServedAs
from lprl_workload.train.mesh import mesh_of
from lprl_workload.train.rank import Share, nested, share_of
from lprl_workload.train.step_plan import budget_of, schedule

TRAINER = os.environ.get("LPRL_CONTRACT_TRAINER", "torch")
FORMATS: dict[str, WeightFormat] = {
    "bf16": Bf16(),
    "fp8": Fp8Block(),
    "fp8-ue8m0": Fp8Block(scale_format="ue8m0"),
    # Training fp8 knows blocks only (rules/precision.py); fp8-qat every strategy: products in BF16, activations as they are.
    "fp8-qat": Fp8Block(activations="none"),
    "fp8-channel-qat": Fp8Channel(activations="none"),
    "int4-qat": Int4Group(group_size=32, scope=Scope.ALL_LINEAR, exclude_modules=("*.kv_b_proj",)),
}
ARCHITECTURES = ("qwen3", "qwen3-moe", "moonlight")


def shape_of(folder: Path) -> ModelShape:
    return read_shape(folder)


def run_config(folder: Path, fmt: WeightFormat, **changes: Any) -> RunConfig:
    path = {"volume": "v", "path": "p"}
    fp8 = "fp8-qat" if getattr(fmt, "activations", "dynamic") == "none" else "fp8"
    training = {"bf16": "bf16", "fp8-block": fp8, "fp8-channel": fp8, "int4-group": "int4-qat"}[fmt.kind]
    document: dict[str, Any] = {
        "job_name": "j", "namespace": "n", "job_uid": "u", "model_path": path, "reference_path": path, "rollout_path": path,
        "shape": shape_of(folder), "precision": {"training": training}, "rollout_format": fmt, "training_format": fmt,
        "data": {"prompts": path}, "algorithm": {"steps": 10, "kl": {"coefficient": 0.0}}, "optimizer": {"learning_rate": 1e-3},
        "sampling": {"max_response_tokens": 16}, "evaluation": None,
        "ranks": {"placement": "colocated", "accelerator": "cpu", "nodes": 1, "slots_per_node": 1, "trainer_ranks": 1,
                  "data_parallel": 1, "engines": 1, "slots_per_engine": 1, "trainer_nodes": 1, "rollout_nodes": 0},
        "trainer": {"recompute": "none", "max_tokens_per_gpu": 64}, "rollout": {}, "backends": {"trainer": TRAINER}, "weight_sync": {},
        "checkpoint": {"directory": path, "every_steps": 1, "keep": 1, "load_from": None, "export_formats": ["bf16"]},
        "stability": {}, "tracking": {}, "progress": {}, "refill_steps": 1,
    }  # fmt: skip
    return RunConfig.model_validate(document | changes)


def paths_of(folder: Path) -> ResolvedPaths:
    return ResolvedPaths(folder, folder, folder, folder, folder, None, None)


def batch(seed: int, count: int = 8, old: bool = False, lengths: tuple[int, ...] = (3, 5, 2, 6)) -> list[TrainSample]:
    g = torch.Generator().manual_seed(seed)

    def ids(n: int) -> list[int]:
        found: list[int] = torch.randint(3, 40, (n,), generator=g).tolist()
        return found

    samples = []
    for n in range(count):
        r = lengths[n % len(lengths)]
        response = ids(r)
        logprobs = (-3.5 + 0.1 * torch.randn(r, generator=g)).numpy()
        prompt = ids(2 + n % 3)
        mask = np.arange(len(prompt) + r) >= len(prompt)
        advantage = np.full(r, 1.0 - 2.0 * (n % 2), np.float32)
        samples.append(TrainSample(token_ids(prompt + response), mask, logprobs, advantage, logprobs if old else None))
    return samples


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("models")
    for name in ARCHITECTURES:
        generate_model(root / name, ModelOptions(architecture=name, size="tiny", seed=1))
    return {name: root / name for name in ARCHITECTURES}


def make(folder: Path, fmt: WeightFormat, **changes: Any) -> Any:
    return trainer_class(TRAINER)(run_config(folder, fmt, **changes), paths_of(folder), RankInfo(0, 1, "cpu"))


def forward_weights(actor: Any) -> dict[str, torch.Tensor]:
    """What a trainer of one rank computes with, by checkpoint tensor."""
    if TRAINER == "torch":
        return {slot.name: slot.read() for slot in weight_slots(actor._trained.policy.model, actor._run.shape)}
    from lprl_workload.train.megatron.weights import read

    held = {part.name: (h, part) for h in actor.model.mapping.held(0) for part in h.cutting.parts}
    return {name: read(actor.model.parameters[h.chunk, h.name].detach(), part) for name, (h, part) in held.items()}


def parameters_of(actor: Any, reference: bool = False) -> list[torch.Tensor]:
    """Forward weights as they lie in memory."""
    if TRAINER == "torch":
        return list((actor._reference if reference else actor._trained.policy).parameters())
    found = actor._reference if reference else actor.model
    return [tensor for tensor in found.parameters.values() if isinstance(tensor, torch.nn.Parameter)]


def parts_of(samples: list[TrainSample], run: RunConfig, rank: int = 0) -> tuple[Share, list[list[TrainSample]]]:
    share = share_of(schedule([len(s.ids) for s in samples], mesh_of(run), budget_of(run)), 0, rank)
    return share, nested([samples[n] for n in share.numbers], share.sizes)


def export_of(actor: Any) -> dict[str, torch.Tensor]:
    """Every tensor on rank 0; the others take part."""
    return whole_weights(actor.source(), actor.peers(), ServedAs(Bf16(), Selection(Bf16(), actor._run.shape)))


def step(actor: Any, samples: list[TrainSample], rank: int = 0) -> dict[str, float]:
    """A step on `rank`'s part of a global batch."""
    found: dict[str, float] = actor.train(parts_of(samples, actor._run, rank)[1], len(samples), sum(s.drawn_tokens for s in samples))
    return found


def logprobs(actor: Any, samples: list[TrainSample], temperature: float, reference: bool = False) -> list[list[float]]:
    share, parts = parts_of(samples, actor._run)
    rows = [row for part in (actor.reference_logprobs if reference else actor.logprobs)(parts, temperature) for row in part]
    assert all(row.dtype == np.float32 for row in rows)
    return [row.tolist() for row in in_order(share.numbers, rows)]


@pytest.fixture(params=[f"{a}/{f}" for a in ARCHITECTURES for f in FORMATS])
def case(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Iterator[tuple[Any, Path, WeightFormat]]:
    architecture, name = request.param.split("/")
    actor = make(folders[architecture], FORMATS[name])
    yield actor, folders[architecture], FORMATS[name]
    actor.close()


def save(actor: Any, directory: Path) -> Any:
    actor.begin_save(directory)
    return actor.finish_save(wait=True)
