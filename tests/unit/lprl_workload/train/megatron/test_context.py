"""Micro-batches cut over context ranks: every token once, as much work for each rank, and all that was asked is answered by one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lprl_workload.episode import TrainSample, token_ids
from lprl_workload.hf.packed_attention import families
from lprl_workload.train.batch import MicroBatch, collate
from lprl_workload.train.megatron.batches import micro_batches
from lprl_workload.train.megatron.context import cut, padded, part

CPU = torch.device("cpu")
Lengths = list[tuple[int, int]]
"""Tokens of a prompt, and of what is drawn after it."""


def samples(lengths: Lengths) -> list[TrainSample]:
    """Return samples whose tokens are numbered through: each is told from all others."""
    found, first = [], 1
    for prompt, drawn in lengths:
        values, mask = np.zeros(drawn, np.float32), np.arange(prompt + drawn) >= prompt
        found.append(TrainSample(token_ids(range(first, first + prompt + drawn)), mask, values, values))
        first += prompt + drawn
    return found


CASES = st.tuples(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 20)), min_size=1, max_size=5), st.integers(2, 4), st.sampled_from([1, 2, 16, 48])
)


@settings(max_examples=80, deadline=None)
@given(CASES)
def test_each_token_is_one_ranks_and_all_ranks_have_as_much(case: tuple[Lengths, int, int]) -> None:
    lengths, context, multiple = case
    plain = collate(samples(lengths), CPU, share=False)
    whole = padded(plain, context, multiple)
    cuts = [cut(whole, context, rank) for rank in range(context)]
    together = torch.cat([one.mine for one in cuts])
    assert together.sort().values.tolist() == list(range(whole.input_ids.shape[1]))
    assert len({len(one.mine) for one in cuts}) == 1 and len(cuts[0].mine) % multiple == 0
    assert all(torch.equal(together[one.gathered], torch.arange(len(together))) for one in cuts)
    pairs = [sum(sum(range(c.end - c.begin - c.queries + 1, c.end - c.begin + 1)) for c in one.chunks) for one in cuts]
    assert len(set(pairs)) == 1, "pairs of a query and a key that it sees"
    for one in cuts:
        places = [torch.arange(c.end - c.queries, c.end) for c in one.chunks]
        assert torch.equal(torch.cat(places), one.mine) and one.mine.tolist() == sorted(one.mine.tolist())


@settings(max_examples=80, deadline=None)
@given(CASES)
def test_what_is_asked_is_answered_by_the_rank_that_has_the_predictor(case: tuple[Lengths, int, int]) -> None:
    lengths, context, multiple = case
    plain = collate(samples(lengths), CPU, share=False)
    whole = padded(plain, context, multiple)
    assert torch.equal(asked(whole), asked(plain)), "padding moves tokens, and nothing that is asked of them"
    answers = torch.full_like(plain.targets, -1)
    for rank in range(context):
        found, answered = part(whole, cut(whole, context, rank).mine)
        assert (answers[answered] == -1).all()
        answers[answered] = found.targets
        assert torch.equal(asked(found), asked(plain)[answered])
        assert not len(found.rows) or int(found.rows.max()) < len(found.predictors)
    assert torch.equal(answers, plain.targets)


def asked(batch: MicroBatch) -> torch.Tensor:
    """Return of each target: the token that predicts it, where that stands, and the target, int64 [T, 3]."""
    at = batch.predictors[batch.rows]
    return torch.stack([batch.input_ids[0, at], batch.positions[0, at], batch.targets], dim=1)


def test_samples_of_one_prompt_have_it_each_for_themselves() -> None:
    same = [replace(sample, ids=token_ids([7, 7, 7, 8, number])) for number, sample in enumerate(samples([(3, 2), (3, 2), (3, 2)]))]
    (staged,) = micro_batches([same], CPU, 1, 1, (2, 0))
    assert staged.cut is not None and [c.end - c.begin for c in staged.cut.chunks] == [1, 4] * 3
    with pytest.raises(TypeError, match="share a prompt"):
        padded(replace(staged.asked, layout=(families(1, 3, [1, 1], CPU),)), 2, 1)


def test_a_micro_batch_without_samples_is_cut_as_well() -> None:
    for rank in range(2):
        (staged,) = micro_batches([[]], CPU, 8, 1, (2, rank))
        assert staged.answered is not None and not len(staged.answered) and staged.mine.input_ids.shape == (1, 8)
