"""The output head in chunks: as many logits at a time as are allowed, and the same log-probabilities and step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contract import trainer_bench
from tests.contract.trainer_bench import FORMATS, batch, logprobs, make, shape_of, step

from lprl_workload.train.megatron import vocab

folders = trainer_bench.folders
AT_ONCE = 3
"""Rows of logits."""


def test_never_more_logits_than_allowed_whatever_the_tokens(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    changes: dict[str, Any] = {"algorithm": {"steps": 10, "entropy_coefficient": 0.01}, "trainer": {"max_tokens_per_gpu": 4096}}
    samples, rows = batch(3), shape_of(folders["qwen3"]).vocab
    whole, pieces = (make(folders["qwen3"], FORMATS["bf16"], **changes) for _ in range(2))
    wanted = logprobs(whole, samples, 0.7), step(whole, samples)
    largest, inner = [0], vocab.linear

    def seen(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = inner(hidden, weight)
        largest[0] = max(largest[0], found.numel())
        return found

    monkeypatch.setattr(vocab, "linear", seen)
    monkeypatch.setattr(vocab, "LOGIT_ELEMENTS", AT_ONCE * rows)
    found = logprobs(pieces, samples, 0.7)
    for row, want in zip(found, wanted[0], strict=True):
        assert row == pytest.approx(want, abs=1e-6)
    assert step(pieces, samples) == pytest.approx(wanted[1], rel=1e-4, abs=1e-6)
    assert 0 < largest[0] <= AT_ONCE * rows
