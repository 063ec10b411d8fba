"""One model under many layouts, from one checkpoint: equal losses, one goes on from what another saved, pushes are converted exports."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.contract.test_sharded_push import FORMATS, Rank, assert_served, offline
from tests.megatron_cpu.crew import Job, run
from tests.megatron_cpu.models import is_beside, samples, write_model

from lprl_api.model.model_shape import ModelShape
from lprl_fixtures.architectures import Architecture
from lprl_workload.checkpoint.hf_folder import write_trained
from lprl_workload.config import RankInfo
from lprl_workload.episode import TrainSample
from lprl_workload.hf.folder import read_folder
from lprl_workload.train.megatron.stages import Stages
from lprl_workload.train.mesh import TrainMesh

Layout = tuple[TrainMesh, tuple[int, ...], bool]
ALONE: Layout = (TrainMesh(), (4,), False)
DENSE: dict[str, Layout] = {
    "tp2-sp": (TrainMesh(tp=2), (4,), True),
    "pp2-uneven": (TrainMesh(pp=2), (3, 1), False),
    "pp2-vpp2": (TrainMesh(pp=2, vpp=2), (2, 2), False),
    "dp2": (TrainMesh(dp=2), (4,), False),
    "cp2": (TrainMesh(cp=2), (4,), False),
}
EXPERTS: dict[str, Layout] = {
    "ep2": (TrainMesh(dp=2, ep=2), (4,), False),
    "tp2-ep2-sp": (TrainMesh(tp=2, ep=2), (4,), True),
    "pp2": (TrainMesh(pp=2), (2, 2), False),
}
CASES: dict[Architecture | str, dict[str, Layout]] = {
    "qwen3": DENSE,
    "qwen3-moe": EXPERTS,
    "moonlight": EXPERTS,
    "deepseek-v3": EXPERTS,
    "glm4_moe": {"tp2-ep2-sp": EXPERTS["tp2-ep2-sp"]},
    "kimi_k25": {"pp2": EXPERTS["pp2"]},
    "qwen3_5": {"tp2-sp": DENSE["tp2-sp"]},
    "qwen3_5_moe_text": {"ep2": EXPERTS["ep2"]},
    "deepseek_v32": {"pp2": EXPERTS["pp2"]},
}
STEPS = 8
CHANGES: dict[str, Any] = {"optimizer": {"learning_rate": 1e-3}, "algorithm": {"steps": 20, "kl": {"coefficient": 0.0}}}


def batch(seed: int) -> list[TrainSample]:
    draw, found = np.random.default_rng(seed), []
    for number, sample in enumerate(samples()):
        old = (-4.2 + 0.3 * draw.standard_normal(sample.drawn_tokens)).astype(np.float32)
        advantage = np.full(sample.drawn_tokens, 1.0 - 2.0 * (number % 2), np.float32)
        found.append(replace(sample, rollout_logprobs=old, advantage=advantage))
    return found


def job_of(folder: Path, shape: ModelShape, layout: Layout, given: Any) -> Job:
    mesh, layers, sequence_parallel = layout
    return Job(folder, shape, mesh, Stages(layers, mesh.vpp), (), sequence_parallel, given)


def begin(job: Job, rank: RankInfo) -> list[dict[str, float]]:
    """Make the checkpoint that all layouts begin with, and go on from it."""
    actor, drawn = job.actor(rank, **CHANGES), []
    for number in range(2):
        train(job, actor, rank.rank, number)
    actor.begin_save(job.given)
    actor.finish_save(wait=True)
    for number in range(STEPS):
        drawn.append(train(job, actor, rank.rank, number))
    return drawn


def train(job: Job, actor: Any, rank: int, seed: int) -> dict[str, float]:
    drawn = batch(seed)
    parts = [[drawn[:4], drawn[4:]]] if job.mesh.dp == 1 else [[drawn[:4], drawn[4:5]], [drawn[5:], []]]
    found: dict[str, float] = actor.train(replace(job, parts=parts).mine(rank), len(drawn), sum(s.drawn_tokens for s in drawn))
    return found


def go_on(job: Job, rank: RankInfo) -> tuple[list[dict[str, float]], int]:
    """Load what another layout saved and hand it out; then train from the checkpoint all begin with, save and push in every format."""
    origin, before, root = job.given
    actor = job.actor(rank, **CHANGES)
    actor.load(before)
    write_trained(folder_of(root / "again"), actor.source(), actor.peers(), job.folder, job.shape)
    actor.load(origin)
    found = [train(job, actor, rank.rank, number) for number in range(STEPS)]
    actor.begin_save(folder_of(root / "saved"))
    actor.finish_save(wait=True)
    pushing = Rank(actor, job.run(**CHANGES), rank.rank, root, job.folder)
    for number, fmt in enumerate(FORMATS if rank.world > 1 else ()):
        pushing.push(fmt, f"f{number}", 7)
    write_trained(folder_of(root / "export"), actor.source(), actor.peers(), job.folder, job.shape)
    actor.close()
    return found, actor.optimizer_steps


def folder_of(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize("name", CASES)
def test_layouts_agree_in_losses_checkpoints_and_pushes(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shape = write_model(folder, name)
    (origin := tmp_path / "origin").mkdir()
    (alone,) = run(job_of(folder, shape, ALONE, origin), begin)
    before, last = origin, None
    for layout, found in [*CASES[name].items(), ("alone", ALONE)]:
        root = folder_of(tmp_path / layout)
        answers = run(job_of(folder, shape, found, (origin, before, root)), go_on)
        for steps, count in answers:
            assert count == 2 + STEPS
            assert [s["loss"] for s in steps] == pytest.approx([s["loss"] for s in alone], abs=1e-4), layout
        again = dict(read_folder(root / "again"))
        if last is not None:
            assert all(torch.equal(again[key], tensor) for key, tensor in last.items()), f"{layout} of what {before.parent.name} saved"
        for number, fmt in enumerate(FORMATS if found != ALONE else ()):
            pushed = {name: tensor for name, tensor in offline(root / "export", fmt).items() if not is_beside(name)}
            assert_served(root, f"f{number}", 7, pushed)
        before, last = root / "saved", dict(read_folder(root / "export"))
