"""Micro-batches on every stage: what the first stage tells the others, and what padding leaves alone."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from lprl_workload.episode import TrainSample, token_ids
from lprl_workload.train.batch import collate
from lprl_workload.train.megatron.batches import micro_batches, tell

CPU = torch.device("cpu")


def sample(prompt: Sequence[int], drawn: Sequence[int]) -> TrainSample:
    nothing = np.zeros(len(drawn), np.float32)
    return TrainSample(token_ids([*prompt, *drawn]), np.arange(len(prompt) + len(drawn)) >= len(prompt), nothing, nothing)


PARTS = [[sample([5, 6, 7], [8]), sample([5, 6, 7], [9, 10, 11])], [], [sample([3], [4, 5])]]


def test_a_stage_without_sequences_runs_the_first_ones() -> None:
    sent: list[Tensor] = []

    def send(values: Tensor) -> Tensor:
        sent.append(values.clone())
        return values

    tell(PARTS, send, CPU)
    received = iter(sent)
    told = tell([[], [], []], lambda _: next(received), CPU)
    assert [len(part) for part in told] == [2, 0, 1]
    for mine, theirs in zip(chain(*told), chain(*PARTS), strict=True):
        assert np.array_equal(mine.ids, theirs.ids) and np.array_equal(mine.mask, theirs.mask)


def test_padding_adds_tokens_at_the_end_that_nobody_attends_to_or_predicts() -> None:
    for part, staged in zip(PARTS, micro_batches(PARTS, CPU, multiple=8, count=1), strict=True):
        batch = staged.mine
        assert batch is staged.asked
        assert batch.input_ids.shape[1] % 8 == 0 and sum(n for block in batch.layout for n in block.sizes) == batch.input_ids.shape[1]
        if part:
            plain = collate(part, CPU)
            tokens = plain.input_ids.shape[1]
            assert torch.equal(batch.input_ids[:, :tokens], plain.input_ids)
            assert [block.sizes for block in batch.layout[: len(plain.layout)]] == [block.sizes for block in plain.layout]
            assert torch.equal(batch.predictors, plain.predictors) and int(batch.predictors.max()) < tokens


def test_an_interleaved_pipeline_gets_a_multiple_of_its_stages() -> None:
    batches = [staged.asked for staged in micro_batches(PARTS, CPU, multiple=1, count=2)]
    assert len(batches) == 4 and [len(batch.targets) for batch in batches] == [4, 0, 2, 0]
