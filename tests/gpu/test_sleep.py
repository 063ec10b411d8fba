"""Trainer and engine that share a GPU: what sleeps is free for the other, and a run that takes turns trains."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.gpu.test_gpu import MODES, samples, setup, train

from lprl_api.derived.residency import TRAIN_PARTS
from lprl_api.names import ExitCode
from lprl_fixtures.runs import merged, run_config, write_inputs
from lprl_workload.__main__ import main
from lprl_workload.config import RankInfo
from lprl_workload.train.actor_torch import TorchTrainActor

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("mode", MODES)
def test_a_trainer_that_sleeps_leaves_the_gpu(tmp_path: Path, mode: str) -> None:
    run, paths = setup(tmp_path, "qwen3-moe", mode)
    before = torch.cuda.memory_allocated()
    actor = TorchTrainActor(run, paths, RankInfo(0, 1, "cuda:0"))
    train(actor, samples(), 8)
    parameters = sum(p.numel() for p in actor._trained.policy.parameters())
    awake = torch.cuda.memory_allocated() - before
    assert awake > 16 * parameters, "masters, gradients, two moments"
    (want,) = actor.logprobs([samples()], 1.0)
    actor.sleep(frozenset({"optimizer"}))
    assert torch.cuda.memory_allocated() - before < awake - 11.9 * parameters
    actor.sleep(TRAIN_PARTS)
    asleep = torch.cuda.memory_allocated() - before
    assert asleep < awake / 100, f"{asleep} of {awake} bytes stay"
    actor.wake(TRAIN_PARTS)
    (found,) = actor.logprobs([samples()], 1.0)
    assert all((a == b).all() for a, b in zip(found, want, strict=True))
    print(f"\n{mode}: {parameters} parameters, {awake / parameters:.2f} bytes each awake, {asleep} bytes asleep")


@pytest.mark.parametrize("mode", MODES)
def test_a_colocated_run_takes_turns_and_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv("LPRL_VOLUMES_ROOT", str(tmp_path))
    monkeypatch.setenv("LPRL_TERMINATION_LOG", str(tmp_path / "term"))
    monkeypatch.setenv("LPRL_LOCAL_CONFIGMAPS", str(tmp_path / "cm"))
    write_inputs(tmp_path, "qwen3-moe")
    training, rollout = MODES[mode]
    precision = {"training": training, "rollout": rollout, "int4": {"group_size": 32}}
    changes: dict[str, Any] = {
        "algorithm": {"steps": 4},
        "evaluation": {"every_steps": 2},
        "ranks": {"accelerator": "H100-80GB"},
        "precision": precision,
    }
    base = {"job_name": "gpu", "checkpoint": {"directory": {"volume": "all", "path": "runs/gpu"}, "every_steps": 2}}
    config = tmp_path / "run.json"
    config.write_text(run_config(tmp_path, merged(base, changes)).model_dump_json(by_alias=True))
    assert main(["train", "--config", str(config), "--attempt", "1", "--in-process"]) == ExitCode.OK
    rows = [json.loads(line) for line in (tmp_path / "all" / "runs" / "gpu" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4] and all(row["grad_norm"] > 0 for row in rows)
    assert all(row["k3"] < 0.01 for row in rows), "engine and trainer hold the same weights"
