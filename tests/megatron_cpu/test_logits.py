"""The output head in chunks: as many logits at a time as are allowed, and the same log-probabilities and step."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.contract import trainer_bench
from tests.contract.trainer_bench import FORMATS, batch, logprobs, make, shape_of, step
from tests.megatron_cpu.crew import Job, run
from tests.megatron_cpu.models import samples, write_model

from lprl_workload.config import RankInfo
from lprl_workload.train.megatron import vocab
from lprl_workload.train.megatron.stages import Stages
from lprl_workload.train.mesh import TrainMesh

folders = trainer_bench.folders
AT_ONCE = 3
"""Rows of logits."""


def logprobs_of(job: Job, rank: RankInfo) -> tuple[list[list[float]], dict[str, float]]:
    vocab.LOGIT_ELEMENTS = job.given
    actor = job.actor(rank)
    rows = [row.tolist() for part in actor.logprobs(job.parts[0], 0.7) for row in part]
    return rows, actor.train(job.parts[0], 6, sum(s.drawn_tokens for s in job.parts[0][0]))


def test_tensor_ranks_with_unlike_shares_of_the_vocabulary_take_equally_many_pieces(tmp_path: Path) -> None:
    """70 tokens are 64 and 6 of a padded 128: what a rank has without padding says nothing of the others."""
    shape = write_model(tmp_path / "model", "qwen3")
    drawn = [replace(s, rollout_logprobs=np.full(s.drawn_tokens, -4.2, np.float32)) for s in samples()]
    found = []
    for elements in (1 << 26, AT_ONCE * 64):
        job = Job(tmp_path / "model", shape, TrainMesh(tp=2), Stages((4,)), [[drawn]], given=elements)
        found.append(run(job, logprobs_of))
    for whole, pieces in zip(*found, strict=True):
        for want, row in zip(whole[0], pieces[0], strict=True):
            assert row == pytest.approx(want, abs=1e-6)
        assert pieces[1] == pytest.approx(whole[1], rel=1e-4, abs=1e-6)


def test_never_more_logits_than_allowed_whatever_the_tokens(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    changes: dict[str, Any] = {"algorithm": {"steps": 10, "entropy_coefficient": 0.01}, "trainer": {"max_tokens_per_gpu": 4096}}
    samples, rows = batch(3), shape_of(folders["qwen3"]).vocab
    whole, pieces = (make(folders["qwen3"], FORMATS["bf16"], **changes) for _ in range(2))
    wanted = logprobs(whole, samples, 0.7), step(whole, samples)
    largest, inner = [0], vocab.float32_product

    def seen(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = inner(hidden, weight)
        largest[0] = max(largest[0], found.numel())
        return found

    monkeypatch.setattr(vocab, "float32_product", seen)
    monkeypatch.setattr(vocab, "LOGIT_ELEMENTS", AT_ONCE * rows)
    found = logprobs(pieces, samples, 0.7)
    for row, want in zip(found, wanted[0], strict=True):
        assert row == pytest.approx(want, abs=1e-6)
    assert step(pieces, samples) == pytest.approx(wanted[1], rel=1e-4, abs=1e-6)
    assert 0 < largest[0] <= AT_ONCE * rows
