"""Optimizer steps on gloo ranks: the torch trainer's gradients, metrics and weights, of the same batch of the same model."""

from collections.abc import Mapping as ReadOnly
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.contract.trainer_bench import paths_of, run_config
from tests.megatron_cpu.crew import Job, run
from tests.megatron_cpu.models import CHOOSING, GROUPED, SHARING, samples, write_model
from torch import Tensor

from lprl_api.model.formats import Bf16
from lprl_api.model.model_shape import ModelShape
from lprl_api.wire.runconfig import RunConfig
from lprl_fixtures.architectures import Architecture
from lprl_workload.config import RankInfo
from lprl_workload.episode import TrainSample
from lprl_workload.train.actor_torch import TorchTrainActor
from lprl_workload.train.megatron.mapping import Mapping
from lprl_workload.train.megatron.stages import Stages
from lprl_workload.train.megatron.weights import read
from lprl_workload.train.mesh import TrainMesh

MODELS: dict[str, tuple[Architecture | str, dict[str, Any]]] = {
    "qwen2-tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {}),
    "qwen3-moe": ("qwen3-moe", {}),
    "deepseek-v3": ("deepseek-v3", {}),
    "glm-4.6": ("glm4_moe", {"use_qk_norm": True, "attention_bias": True}),
    "glm-4.7-flash": ("glm4_moe_lite", {}),
    "kimi-k2.5": ("kimi_k25", {}),
    "qwen3.5": ("qwen3_5", GROUPED),
    "qwen3.5-moe": ("qwen3_5_moe_text", {}),
    "qwen3-next": ("qwen3_next", GROUPED),
    "deepseek-v3.2": ("deepseek_v32", CHOOSING),
    "glm-5": ("glm_moe_dsa", SHARING),
    "deepseek-v3-dense": ("deepseek-v3", {"first_k_dense_replace": 4}),
}
CASES: dict[str, tuple[str, TrainMesh, tuple[int, ...], bool]] = {
    "tp2": ("qwen3", TrainMesh(tp=2), (4,), False),
    "tp2-sp": ("qwen3", TrainMesh(tp=2), (4,), True),
    "dp2": ("qwen3", TrainMesh(dp=2), (4,), False),
    "pp2-tied": ("qwen2-tied", TrainMesh(pp=2), (2, 2), False),
    "dp2-pp2-tied": ("qwen2-tied", TrainMesh(dp=2, pp=2), (2, 2), False),
    "pp2-vpp2": ("qwen3", TrainMesh(pp=2, vpp=2), (2, 2), False),
    "ep2": ("qwen3-moe", TrainMesh(dp=2, ep=2), (4,), False),
    "dp2-experts": ("qwen3-moe", TrainMesh(dp=2), (4,), False),
    "tp2-etp2-sp": ("qwen3-moe", TrainMesh(tp=2, etp=2), (4,), True),
    "tp2-ep2-pp2-sp": ("qwen3-moe", TrainMesh(tp=2, ep=2, pp=2), (2, 2), True),
    "latent-tp2": ("deepseek-v3-dense", TrainMesh(tp=2), (4,), False),
    "latent-tp2-ep2-sp": ("deepseek-v3", TrainMesh(tp=2, ep=2), (4,), True),
    "glm-4.6-tp2-ep2-sp": ("glm-4.6", TrainMesh(tp=2, ep=2), (4,), True),
    "glm-4.7-flash-pp2": ("glm-4.7-flash", TrainMesh(pp=2), (3, 1), False),
    "kimi-k2.5-ep2": ("kimi-k2.5", TrainMesh(dp=2, ep=2), (4,), False),
    "qwen3.5-tp2": ("qwen3.5", TrainMesh(tp=2), (4,), False),
    "qwen3.5-pp2": ("qwen3.5", TrainMesh(pp=2), (3, 1), False),
    "qwen3.5-moe-ep2": ("qwen3.5-moe", TrainMesh(dp=2, ep=2), (4,), False),
    "qwen3-next-tp2-ep2-sp": ("qwen3-next", TrainMesh(tp=2, ep=2), (4,), True),
    "deepseek-v3.2-pp2": ("deepseek-v3.2", TrainMesh(pp=2), (3, 1), False),
    "glm-5-tp2-ep2-sp": ("glm-5", TrainMesh(tp=2, ep=2), (4,), True),
    "cp2": ("qwen3", TrainMesh(cp=2), (4,), False),
    "cp2-ep2": ("qwen3-moe", TrainMesh(cp=2, ep=2), (4,), False),
    "latent-tp2-cp2-sp": ("deepseek-v3-dense", TrainMesh(tp=2, cp=2), (4,), True),
    "pp2-cp2-tied": ("qwen2-tied", TrainMesh(pp=2, cp=2), (2, 2), False),
    "pp4": ("qwen3", TrainMesh(pp=4), (1, 1, 1, 1), False),
}
STEPS = 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, ModelShape]]:
    root = tmp_path_factory.mktemp("models")
    return {name: (root / name, write_model(root / name, kind, **changes)) for name, (kind, changes) in MODELS.items()}


CHANGES: dict[str, Any] = {
    "algorithm": {"steps": 10, "kl": {"coefficient": 0.0}, "entropy_coefficient": 0.02},
    "optimizer": {"learning_rate": 1e-3, "gradient_clip": None},
}
"""Without a limit of the gradient, and with an entropy bonus: its gradient goes over the whole vocabulary."""


def batch() -> list[TrainSample]:
    """Return samples of the policy before an update: ratios differ from 1, some beyond the clip."""
    draw, found = np.random.default_rng(5), []
    for number, sample in enumerate(samples()):
        old = (-4.2 + 0.3 * draw.standard_normal(sample.drawn_tokens)).astype(np.float32)
        advantage = np.full(sample.drawn_tokens, 1.0 - 2.0 * (number % 2), np.float32)
        found.append(replace(sample, rollout_logprobs=old, advantage=advantage, old_logprobs=old))
    return found


def dealt(mesh: TrainMesh) -> list[list[list[TrainSample]]]:
    """Two micro-batches for each data index; with two indices the second one's last is empty."""
    drawn = batch()
    return [[drawn[:4], drawn[4:]]] if mesh.dp == 1 else [[drawn[:4], drawn[4:5]], [drawn[5:], []]]


Found = dict[str, list[tuple[tuple[int, ...], Tensor]]]


def stepped(job: Job, rank: RankInfo) -> tuple[list[dict[str, float]], Found, Found]:
    """Return the metrics of each step, the first one's gradients and the last one's masters, as far as the rank owns them."""
    drawn, parts = batch(), job.mine(rank.rank)
    actor, metrics, gradients = job.actor(rank, **CHANGES), [], dict[str, Any]()
    for number in range(STEPS):
        metrics.append(actor.train(parts, len(drawn), sum(s.drawn_tokens for s in drawn)))
        if number == 0:
            gradients = owned(actor.model.mapping, rank.rank, actor.masters.gradients)
    found = owned(actor.model.mapping, rank.rank, actor.masters.values)
    actor.close()
    return metrics, gradients, found


def owned(mapping: Mapping, rank: int, values: ReadOnly[tuple[int, str], Tensor]) -> Found:
    found: Found = {}
    for (name, offset), (held, part) in mapping.owned(rank).items():
        if (held.chunk, held.name) in values:
            found.setdefault(name, []).append((offset, read(values[held.chunk, held.name], part).clone()))
    return found


def together(shapes: dict[str, Tensor], found: list[Found]) -> dict[str, Tensor]:
    """Put the pieces of all ranks together."""
    whole = {name: torch.full(tensor.shape, torch.nan) for name, tensor in shapes.items()}
    pieces = ((name, *piece) for ranks in found for name, parts in ranks.items() for piece in parts if name in whole)
    for name, offset, values in pieces:
        whole[name][tuple(slice(a, a + n) for a, n in zip(offset, values.shape, strict=True))] = values
    return whole


class Recomputing(Job):
    """A job that recomputes `given` layers at a time."""

    def run(self, **changes: Any) -> RunConfig:
        """Return the RunConfig of its ranks, changed."""
        found = super().run(**changes)
        layout = found.trainer.model_copy(update={"recompute": "full", "recompute_layers": self.given})
        return found.model_copy(update={"trainer": layout})


@cache
def on_torch(folder: Path, shape: ModelShape) -> tuple[list[dict[str, float]], dict[str, Tensor], dict[str, Tensor]]:
    """Return the same of the torch trainer, one rank."""
    torch.set_num_threads(1)
    actor, drawn, metrics = (
        TorchTrainActor(run_config(folder, Bf16(), shape=shape, **CHANGES), paths_of(folder), RankInfo(0, 1, "cpu")),
        batch(),
        [],
    )
    gradients = dict[str, Tensor]()
    for number in range(STEPS):
        metrics.append(actor.train([drawn[:4], drawn[4:]], len(drawn), sum(s.drawn_tokens for s in drawn)))
        if number == 0:
            gradients = by_slot(actor, "grad")
    masters = by_slot(actor, "value")
    actor.close()
    return metrics, gradients, masters


def by_slot(actor: TorchTrainActor, field: str) -> dict[str, Tensor]:
    """Return a field of each master, by checkpoint tensor."""
    found = {}
    for slot in actor._trained.slots:
        if not slot.is_buffer:
            whole: Tensor = getattr(actor.masters.items[slot.parameter], field)
            found[slot.name] = (whole[slot.index] if slot.index else whole).clone()
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_step_on_ranks_is_the_torch_trainers(case: str, folders: dict[str, tuple[Path, ModelShape]]) -> None:
    name, mesh, layers, sequence_parallel = CASES[case]
    folder, shape = folders[name]
    wanted_metrics, wanted_gradients, wanted_masters = on_torch(folder, shape)
    answers = run(Job(folder, shape, mesh, Stages(layers, mesh.vpp), dealt(mesh), sequence_parallel), stepped)
    gradients = together(wanted_gradients, [found for _, found, _ in answers])
    for tensor, wanted in wanted_gradients.items():
        torch.testing.assert_close(
            gradients[tensor], wanted, atol=2e-5 * float(wanted.abs().max()), rtol=0, msg=lambda m, t=tensor: f"{t}: {m}"
        )
    for metrics, _, _ in answers:
        for step, wanted_step in zip(metrics, wanted_metrics, strict=True):
            assert step == pytest.approx(wanted_step, abs=1e-4, rel=1e-4)
    masters = together(wanted_masters, [found for _, _, found in answers])
    apart = torch.cat([(masters[tensor] - wanted).flatten() for tensor, wanted in wanted_masters.items()])
    # Adam makes a step of the sign of a gradient that is nearly nothing: a few elements go either way.
    assert float(apart.square().mean().sqrt()) < 0.01 * STEPS * 1e-3, "a hundredth of what steps of 1e-3 change"


def kept(job: Job, rank: RankInfo) -> tuple[int, Found]:
    """Return the elements of masters that a rank keeps, and its forward weights after a step."""
    drawn, actor = batch(), job.actor(rank, **CHANGES)
    actor.train(job.mine(rank.rank), len(drawn), sum(s.drawn_tokens for s in drawn))
    elements = sum(master.value.numel() for master in actor.masters.items.values())
    forward: Found = {f"{key}": [((), tensor.detach().clone())] for key, tensor in actor.model.parameters.items()}
    actor.close()
    return elements, forward


@pytest.mark.parametrize("name", ["qwen3", "qwen3-moe"])
def test_data_parallel_ranks_divide_masters_and_compute_with_the_same_weights(
    name: str, folders: dict[str, tuple[Path, ModelShape]]
) -> None:
    folder, shape = folders[name]
    mesh = TrainMesh(dp=2)
    ranks = run(Job(folder, shape, mesh, Stages((4,)), dealt(mesh)), kept)
    ((alone, _),) = run(Job(folder, shape, TrainMesh(), Stages((4,)), dealt(TrainMesh())), kept)
    sizes = [elements for elements, _ in ranks]
    assert sum(sizes) == alone and max(sizes) < 0.6 * alone
    assert all(torch.equal(a, b) for key in ranks[0][1] for (_, a), (_, b) in zip(ranks[0][1][key], ranks[1][1][key], strict=True))


@pytest.mark.parametrize("name", ["qwen3.5-moe", "glm-5"])
def test_recomputed_layers_give_the_same_bits(name: str, folders: dict[str, tuple[Path, ModelShape]]) -> None:
    """States and choices of keys, which layers of a micro-batch hand to each other, are the first pass's."""
    folder, shape = folders[name]
    how = (folder, shape, TrainMesh(), Stages((4,)), dealt(TrainMesh()))
    ((metrics, _, masters),) = run(Job(*how), stepped)
    ((again, _, recomputed),) = run(Recomputing(*how, given=2), stepped)
    assert metrics == again
    assert all(torch.equal(a, b) for key in masters for (_, a), (_, b) in zip(masters[key], recomputed[key], strict=True))
