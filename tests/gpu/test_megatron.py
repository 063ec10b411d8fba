"""Megatron with TransformerEngine on GPUs: our arithmetic, our bytes, and the torch trainer's losses, on one GPU and on two."""

import os
import sys
import traceback
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("NVTE_FP8_BLOCK_SCALING_FP32_SCALES", "1")  # read when TransformerEngine is imported

import numpy as np
import pytest
import torch
from tests.contract.trainer_bench import paths_of, run_config
from tests.megatron_cpu.crew import Job, run
from tests.megatron_cpu.models import samples, stored, write_model
from tests.megatron_cpu.test_layouts import batch
from torch._C._distributed_c10d import PrefixStore

from lprl_api.model.formats import Bf16, Fp8Block, Int4Group, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.spec.precision import Scope
from lprl_fixtures.architectures import Architecture
from lprl_workload.config import RankInfo
from lprl_workload.quant.scheme import quantize
from lprl_workload.train.actor_torch import TorchTrainActor
from lprl_workload.train.megatron.masters import selected
from lprl_workload.train.megatron.stages import Stages
from lprl_workload.train.megatron.weights import read
from lprl_workload.train.mesh import TrainMesh

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]
WIDE = {"hidden_size": 256, "head_dim": 128, "intermediate_size": 256, "moe_intermediate_size": 128}
"""Whole blocks of 128 on each of two tensor ranks, and in each part of a fused parameter."""
LATENT = {
    "hidden_size": 256, "q_lora_rank": 128, "kv_lora_rank": 128, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "intermediate_size": 256, "moe_intermediate_size": 256,
}  # fmt: skip
FORMATS: dict[str, WeightFormat] = {
    "bf16": Bf16(),
    "fp8": Fp8Block(),
    "fp8-qat": Fp8Block(activations="none"),
    "int4-qat": Int4Group(group_size=32, scope=Scope.ALL_LINEAR),
}
MODELS: dict[str, tuple[Architecture | str, dict[str, Any]]] = {
    "qwen3": ("qwen3", WIDE),
    "qwen3-moe": ("qwen3-moe", WIDE),
    "deepseek-v3": ("deepseek-v3", LATENT),
    "glm-4.6": ("glm4_moe", WIDE | {"use_qk_norm": True, "attention_bias": True}),
}
LAYOUTS: dict[str, tuple[TrainMesh, tuple[int, ...], bool, tuple[str, ...]]] = {
    "one": (TrainMesh(), (4,), False, tuple(MODELS)),
    "tp2": (TrainMesh(tp=2), (4,), False, ("qwen3",)),
    "tp2-sp": (TrainMesh(tp=2), (4,), True, ("qwen3", "qwen3-moe", "deepseek-v3")),
    "pp2": (TrainMesh(pp=2), (2, 2), False, ("qwen3", "deepseek-v3")),
    "pp2-vpp2": (TrainMesh(pp=2, vpp=2), (2, 2), False, ("qwen3",)),
    "dp2": (TrainMesh(dp=2), (4,), False, ("qwen3",)),
    "ep2": (TrainMesh(dp=2, ep=2), (4,), False, ("qwen3-moe", "glm-4.6")),
    "tp2-ep2-sp": (TrainMesh(tp=2, ep=2), (4,), True, ("qwen3-moe",)),
}
STEPS = 3
Folders = tuple[tuple[str, tuple[Path, ModelShape]], ...]
CHANGES: dict[str, Any] = {"optimizer": {"learning_rate": 1e-3}, "algorithm": {"steps": 20, "kl": {"coefficient": 0.0}}}
LOGPROB = {"qwen3": 0.02, "qwen3-moe": 0.05, "deepseek-v3": 0.05, "glm-4.6": 0.01}
"""Median of differences of log-probabilities, in nats: two ways of rounding to BF16 lie apart less on these models. Inputs rounded to FP8
make some eight times as much of it: a last bit of BF16 may be a step of FP8."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, ModelShape]]:
    root = tmp_path_factory.mktemp("models")
    return {name: (root / name, write_model(root / name, kind, **changes)) for name, (kind, changes) in MODELS.items()}


Cases = tuple[tuple[str, str], ...]
"""Of one layout: model and format."""


def cases_of(layout: str) -> Cases:
    models, formats = LAYOUTS[layout][3], [fmt for fmt in FORMATS if LAYOUTS[layout][0].world == 1 or fmt != "fp8-qat"]
    return tuple((model, fmt) for model in models for fmt in formats)


def job_of(folders: dict[str, tuple[Path, ModelShape]], model: str, fmt: str, layout: str) -> Job:
    mesh, stages, parallel, _ = LAYOUTS[layout]
    return Job(*folders[model], mesh, Stages(stages, mesh.vpp), [], sequence_parallel=parallel, fmt=FORMATS[fmt], device="cuda", lag_s=20.0)


Answer = tuple[list[dict[str, float]], dict[str, list[Any]], int]
"""Each step's metrics, log-probabilities and exports before any, and how many of TransformerEngine's weights were compared."""


def all_trained(job: Job, rank: RankInfo) -> dict[tuple[str, str], Answer | Exception]:
    """Train every case of a layout in one process: importing TransformerEngine takes longer than any of them."""
    found: dict[tuple[str, str], Answer | Exception] = {}
    for case, one in job.given.items():
        store = None if rank.store is None else PrefixStore("/".join(case), rank.store)
        try:
            found[case] = trained(one, replace(rank, store=store))
        except Exception as error:  # told by the test of the case
            found[case] = RuntimeError(f"rank {rank.rank}: {''.join(traceback.format_exception(error))[-3000:]}")
            sys.stderr.write(f"{case}: {found[case]}\n")  # another rank may wait for ever, and the answers are never looked at
            if rank.world > 1:  # the others may wait for this one
                break
    return found


def trained(job: Job, rank: RankInfo) -> Answer:
    actor, metrics = job.actor(rank, **CHANGES), []
    try:
        texts = replace(job, parts=[[samples()] for _ in range(job.mesh.dp)])
        told: dict[str, list[Any]] = {"logprobs": actor.logprobs(texts.mine(rank.rank), 1.0)}
        shards = actor.source().shards([entry.name for entry in actor.source().manifest().entries])
        told["tensors"] = [(s.name, s.offset, s.tensor.cpu()) for s in shards]
        for seed in range(STEPS):
            drawn = batch(seed)
            parts = [[drawn[:2], drawn[2:4], drawn[4:]]] if job.mesh.dp == 1 else [[drawn[:2], drawn[2:4]], [drawn[4:], []]]
            metrics.append(actor.train(replace(job, parts=parts).mine(rank.rank), len(drawn), sum(s.drawn_tokens for s in drawn)))
        actor.logprobs(texts.mine(rank.rank), 1.0)
        return metrics, told, compare_bytes(actor, job, rank.rank) if job.fmt == FORMATS["fp8"] else 0
    finally:
        actor.close()


@cache
def answers(layout: str, folders: Folders) -> list[dict[tuple[str, str], Answer | Exception]]:
    """Return what each rank of a layout answers to its cases."""
    given = {case: job_of(dict(folders), *case, layout) for case in cases_of(layout)}
    return run(replace(next(iter(given.values())), given=given), all_trained)


def compare_bytes(actor: Any, job: Job, rank: int) -> int:
    """Assert that what TransformerEngine computes with is the conversion of what is handed out; returns how many weights there are."""
    mapping, count = actor.model.mapping, 0
    for held in selected(mapping, rank, job.fmt, job.folder):
        owner, _, name = held.name.rpartition(".")
        cached = actor.model.chunks[held.chunk].get_submodule(owner)._fp8_workspaces[name]
        codes, scales = cached._rowwise_data.view(torch.uint8), cached._rowwise_scale_inv
        for part in held.cutting.parts:
            weight = read(actor.masters.values[held.chunk, held.name].detach(), part).to(torch.bfloat16)
            converted = quantize("x.weight", weight, job.fmt)
            assert torch.equal(read(codes, part), converted["x.weight"].view(torch.uint8)), held.name
            blocks = tuple(-(-n // 128) for n in part.shape)
            by_block = replace(part, row=part.row // 128, run=max(1, part.run // 128), step=max(1, part.step // 128), shape=blocks)
            # TransformerEngine pads rows of scales to a multiple of four.
            found = read(scales[:, : blocks[1]].contiguous(), by_block)
            assert torch.equal(found, converted["x.weight_scale_inv"]), held.name
            count += 1
    return count


@cache
def on_torch(folder: Path, shape: ModelShape, fmt: str) -> tuple[list[dict[str, float]], list[Any]]:
    actor = TorchTrainActor(run_config(folder, FORMATS[fmt], shape=shape, **CHANGES), paths_of(folder), RankInfo(0, 1, "cuda:0"))
    before, found = actor.logprobs([samples()], 1.0), []
    for seed in range(STEPS):
        drawn = batch(seed)
        found.append(actor.train([drawn[:4], drawn[4:]], len(drawn), sum(sample.drawn_tokens for sample in drawn)))
    actor.close()
    return found, before


def check(layout: str, model: str, fmt: str, folders: dict[str, tuple[Path, ModelShape]]) -> None:
    folder, shape = folders[model]
    told = [found.get((model, fmt)) for found in answers(layout, tuple(folders.items()))]
    for answer in told:
        assert not isinstance(answer, Exception), answer
    ranks = [answer for answer in told if not isinstance(answer, Exception) and answer is not None]
    assert len(ranks) == len(told), "not run: another case failed before"
    (wanted, logprobs), whole = on_torch(folder, shape, fmt), stored(folder)
    for _, found, _ in ranks:
        for name, offset, tensor in found["tensors"]:
            index = tuple(slice(a, a + n) for a, n in zip(offset, tensor.shape, strict=True))
            assert torch.equal(tensor, whole[name][index].to(tensor.dtype)), name
    metrics, found, _ = ranks[-1]
    # One token whose router is undecided goes to another expert: the median says whether it is the same arithmetic.
    pairs = zip(found["logprobs"][0], logprobs[0], strict=True)
    each = np.concatenate([abs(mine - theirs) for mine, theirs in pairs])
    apart = float(np.median(each))
    norms = [[round(step["grad_norm"], 4) for step in steps] for steps in (metrics, wanted)]
    print(f"\n{layout} {model} {fmt}: logprobs {apart:.4f} (most {each.max():.4f}), norms {norms}, weights {[r[2] for r in ranks]}")
    assert apart < LOGPROB[model] * (8 if fmt == "fp8" else 1)
    assert all(abs(a - b) < bound * b for a, b, bound in zip(*norms, (0.03, 0.25, 0.25), strict=True))
    assert (sum(answer[2] for answer in ranks) > 0) == (fmt == "fp8")


@pytest.mark.parametrize(("layout", "model", "fmt"), [(layout, *case) for layout in LAYOUTS for case in cases_of(layout)])
def test_gpus_train_as_the_torch_trainer(folders: dict[str, tuple[Path, ModelShape]], layout: str, model: str, fmt: str) -> None:
    need, there = LAYOUTS[layout][0].world, torch.cuda.device_count()
    if there < need:
        pytest.skip(f"needs {need} GPUs")
    check(layout, model, fmt, folders)
