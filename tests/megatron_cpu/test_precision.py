"""Low precision on ranks: forward weights are converted from what is handed out, once a step; losses are the torch trainer's."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contract.trainer_bench import paths_of, run_config
from tests.megatron_cpu.crew import Job, run
from tests.megatron_cpu.models import CHOOSING, samples, tensors_of, write_model
from tests.megatron_cpu.test_layouts import batch

from lprl_api.errors import UserError
from lprl_api.model.formats import Fp8Block, Fp8Channel, Int4Group, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.spec.precision import Scope
from lprl_fixtures.architectures import Architecture
from lprl_workload.config import RankInfo
from lprl_workload.hf.chosen import chosen_of
from lprl_workload.quant.scheme import dequantize, module_of, quantize
from lprl_workload.train.actor_torch import TorchTrainActor
from lprl_workload.train.megatron import masters
from lprl_workload.train.megatron.parts import Part
from lprl_workload.train.megatron.stages import Stages
from lprl_workload.train.megatron.weights import read
from lprl_workload.train.mesh import TrainMesh

WIDE = {"hidden_size": 256, "head_dim": 128, "intermediate_size": 256, "moe_intermediate_size": 128}
"""Whole blocks of 128 on each of two tensor ranks."""
WIDE_NET = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128}
INT4 = Int4Group(group_size=32, scope=Scope.ALL_LINEAR)
EXPERTS_ONLY = Int4Group(group_size=64, scope=Scope.ROUTED_EXPERTS)
CASES: dict[str, tuple[Architecture | str, dict[str, Any], WeightFormat, TrainMesh, tuple[int, ...], bool]] = {
    "fp8-qat-tp2": ("qwen3", WIDE, Fp8Block(activations="none"), TrainMesh(tp=2), (2,), False),
    "fp8-tp2-sp": ("qwen3", WIDE, Fp8Block(), TrainMesh(tp=2), (2,), True),
    "fp8-ep2": ("qwen3-moe", {}, Fp8Block(), TrainMesh(dp=2, ep=2), (2,), False),
    "fp8-channel-qat-pp2": ("qwen3", {}, Fp8Channel(activations="none"), TrainMesh(pp=2), (1, 1), False),
    "int4-qat-tp2-ep2-sp": ("qwen3-moe", {}, INT4, TrainMesh(tp=2, ep=2), (2,), True),
    "glm-4.6-fp8-ep2": ("glm4_moe", {"use_qk_norm": True, "attention_bias": True}, Fp8Block(), TrainMesh(dp=2, ep=2), (2,), False),
    "qwen3.5-fp8-tp2": ("qwen3_5_text", WIDE | WIDE_NET, Fp8Block(), TrainMesh(tp=2), (2,), False),
    "qwen3.5-moe-int4-qat-ep2": ("qwen3_5_moe_text", {}, INT4, TrainMesh(dp=2, ep=2), (2,), False),
    "glm-5-fp8-pp2": ("glm_moe_dsa", CHOOSING | {"indexer_types": ["full", "full"]}, Fp8Block(), TrainMesh(pp=2), (1, 1), False),
    "kimi-k2.5-int4-qat-experts-pp2": ("kimi_k25", {}, EXPERTS_ONLY, TrainMesh(pp=2), (1, 1), False),
    "int4-qat-experts-pp2": ("deepseek-v3", {}, EXPERTS_ONLY, TrainMesh(pp=2), (1, 1), False),
}
STEPS = 3
CHANGES: dict[str, Any] = {"optimizer": {"learning_rate": 1e-3}, "algorithm": {"steps": 20, "kl": {"coefficient": 0.0}}}
Found = list[tuple[str, tuple[int, ...], torch.Tensor, torch.Tensor | None]]


def trained(job: Job, rank: RankInfo) -> tuple[list[dict[str, float]], list[Found], list[int]]:
    """Return, by step, metrics, every part of the rank (name, offset, forward weight, what its master says where it keeps that), and
    how many were quantised.
    """
    calls, inner = [0], masters.fake_quantize

    def counted(*given: Any) -> torch.Tensor:
        calls[0] += 1
        return inner(*given)

    masters.fake_quantize = counted
    actor, metrics, found, counts = job.actor(rank, **CHANGES), [], list[Found](), list[int]()
    for seed in range(STEPS):
        drawn = batch(seed)
        parts = [[drawn[:2], drawn[2:4], drawn[4:]]] if job.mesh.dp == 1 else [[drawn[:2], drawn[2:4]], [drawn[4:], []]]
        calls[0] = 0
        metrics.append(actor.train(replace(job, parts=parts).mine(rank.rank), len(drawn), sum(sample.drawn_tokens for sample in drawn)))
        counts.append(calls[0])
        found.append(
            [_part(actor, held.chunk, held.name, part) for held in actor.model.mapping.held(rank.rank) for part in held.cutting.parts]
        )
    actor.close()
    return metrics, found, counts


def _part(actor: Any, chunk: int, name: str, part: Part) -> tuple[str, tuple[int, ...], torch.Tensor, torch.Tensor | None]:
    used, stored = (read(values[chunk, name].detach(), part).clone() for values in (actor.model.parameters, actor.masters.values))
    kept = actor.masters.replicas.keeps((chunk, name))
    return part.name, part.offset, used, (stored if name.endswith("expert_bias") else stored.to(torch.bfloat16)) if kept else None


@cache
def on_torch(folder: Path, shape: ModelShape, fmt: WeightFormat) -> list[dict[str, float]]:
    torch.set_num_threads(1)
    actor = TorchTrainActor(run_config(folder, fmt, shape=shape, **CHANGES), paths_of(folder), RankInfo(0, 1, "cpu"))
    found = []
    for seed in range(STEPS):
        drawn = batch(seed)
        found.append(actor.train([drawn[:4], drawn[4:]], len(drawn), sum(sample.drawn_tokens for sample in drawn)))
    actor.close()
    return found


@pytest.mark.parametrize("case", CASES)
def test_ranks_compute_with_the_conversion_of_what_they_hand_out(case: str, tmp_path: Path) -> None:
    kind, changes, fmt, mesh, layers, sequence_parallel = CASES[case]
    shape = write_model(tmp_path, kind, sum(layers), **changes)
    wanted = on_torch(tmp_path, shape, fmt)
    answers = run(Job(tmp_path, shape, mesh, Stages(layers, mesh.vpp), (), sequence_parallel, fmt=fmt), trained)
    selection, tensors = chosen_of(tmp_path, fmt, shape), tensors_of(tmp_path, shape)
    for number in range(STEPS):
        assert answers[0][0][number]["loss"] == pytest.approx(wanted[number]["loss"], abs=1e-4), number
        whole = {name: torch.full(size, torch.nan) for name, size in tensors.items()}
        for _, found, _ in answers:
            for name, offset, _, stored in found[number]:
                if stored is not None:
                    whole[name][tuple(slice(a, a + n) for a, n in zip(offset, stored.shape, strict=True))] = stored.float()
        seen = {
            name: dequantize(quantize(name, values.to(torch.bfloat16), fmt), module_of(name), fmt).float()
            if selection.selects(name, tensors[name])
            else values
            for name, values in whole.items()
        }
        for _, found, counts in answers:
            for name, offset, used, _ in found[number]:
                index = tuple(slice(a, a + n) for a, n in zip(offset, used.shape, strict=True))
                assert torch.equal(used, seen[name][index]), (number, name)
            taken = sum(selection.selects(name, tensors[name]) for name, *_, stored in found[number] if stored is not None)
            assert counts[number] == taken, "once a step, whatever the micro-batches, where the master is"
    assert sum(taken for _, _, counts in answers for taken in counts) > 0


def test_a_block_that_two_ranks_would_share_is_refused_by_name(tmp_path: Path) -> None:
    shape = write_model(tmp_path, "qwen3", 2)
    job = Job(tmp_path, shape, TrainMesh(tp=2), Stages((2,)), [[samples()]], fmt=Fp8Block(activations="none"))
    words = r"fp8-block scales 128 rows of model.layers.0.self_attn.q_proj.weight together, and one rank has 0 to 64 of 128"
    with pytest.raises(UserError, match=words):
        run(job, trained)
