"""Micro-batches: where drawn tokens lie, and that a token of the world takes no part in anything but being read."""

from typing import Any

import numpy as np
import pytest
import torch

from lprl_api.spec.algorithm import Algorithm, Correction
from lprl_workload.episode import Episode, TrainSample, drawn, world
from lprl_workload.train.advantage import Rule
from lprl_workload.train.batch import collate
from lprl_workload.train.diagnostics import largest_difference, token_sums
from lprl_workload.train.loss import Denominators, TokenBatch, compute_loss
from lprl_workload.train.rank import train_sample

VOCAB = 11
CPU = torch.device("cpu")


def sample(*turns: Any, value: float = 1.0) -> TrainSample:
    """(world ids | (ids, log-prob)) in order, after the prompt 1 2."""
    made = [drawn(t[0], [t[1]] * len(t[0]), 0) if isinstance(t, tuple) else world(t) for t in turns]
    return train_sample(Episode(0, 0, 0, (world([1, 2]), *made), "stop"), value, Rule("level"), None, None)


TALK = sample(([3, 4], -1.0), [5, 6, 7], ([8], -2.0))
SHORT = sample(([9], -1.5), value=-1.0)


def test_drawn_tokens_lie_side_by_side_and_keep_their_predictors() -> None:
    batch = collate([TALK, SHORT], CPU)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7]], "the prompt once, nothing after the last predictor"
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 5, 6]]
    assert batch.predictors.tolist() == [1, 2, 6] and batch.rows.tolist() == [0, 0, 1, 2], "both samples begin after the prompt"
    assert batch.targets.tolist() == [3, 9, 4, 8]
    assert batch.cells.tolist() == [0, 3, 1, 2] and batch.shape == (2, 3) and batch.lengths == (3, 1)
    assert batch.spread(torch.tensor([-1.0, -1.5, -1.0, -2.0])).tolist() == [[-1.0, -1.0, -2.0], [-1.5, 0.0, 0.0]]
    assert batch.field([TALK.rollout_logprobs, SHORT.rollout_logprobs]).tolist() == [[-1.0, -1.0, -2.0], [-1.5, 0.0, 0.0]]
    assert batch.mask().tolist() == [[1, 1, 1], [1, 0, 0]]


def run(samples: list[TrainSample], logits: torch.Tensor, aggregation: str) -> tuple[torch.Tensor, torch.Tensor, TokenBatch]:
    """Loss, token sums and values of a micro-batch whose logits [N, V] are given."""
    batch = collate(samples, CPU)
    logp = torch.log_softmax(logits.index_select(0, batch.predictors.index_select(0, batch.rows)), -1)
    chosen, entropy = logp.gather(1, batch.targets[:, None])[:, 0], -(logp.exp() * logp).sum(-1)
    now = batch.spread(chosen)
    reference = torch.full_like(now, -2.0) * batch.mask()
    fields = [batch.field([getattr(s, name) for s in samples]) for name in ("rollout_logprobs", "advantage")]
    tokens = TokenBatch(now, now.detach(), fields[0], fields[1], batch.mask(), batch.spread(entropy), reference)
    settings = Algorithm.model_validate(
        {"steps": 1, "loss_aggregation": aggregation, "kl": {"coefficient": 0.1}, "entropy_coefficient": 0.01, "name": "gspo"}
    )
    terms = compute_loss(tokens, settings, Correction(type="tis"), Denominators(len(samples), sum(s.drawn_tokens for s in samples), 4))
    return terms.loss, token_sums(tokens, terms), tokens


@pytest.mark.parametrize("aggregation", ["sample-mean", "token-mean", "constant"])
def test_the_worlds_tokens_have_no_gradient_and_no_part_in_any_sum(aggregation: str) -> None:
    """Logits that predict the world's tokens get a gradient of exactly zero, and no value of theirs changes anything."""
    batch = collate([TALK, SHORT], CPU)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(batch.input_ids.numel(), VOCAB, generator=generator, requires_grad=True)
    loss, sums, _ = run([TALK, SHORT], logits, aggregation)
    (gradient,) = torch.autograd.grad(loss, logits)
    others = sorted(set(range(len(logits))) - set(batch.predictors.tolist()))
    assert torch.count_nonzero(gradient[others]) == 0 and torch.count_nonzero(gradient[batch.predictors]) > 0
    wild = logits.detach().clone()
    wild[others] = float("nan")
    again, same, tokens = run([TALK, SHORT], wild, aggregation)
    assert torch.equal(again, loss) and torch.equal(same, sums) and torch.isfinite(largest_difference(tokens))


@pytest.mark.parametrize("aggregation", ["sample-mean", "token-mean", "constant"])
def test_what_the_world_says_in_between_changes_no_denominator(aggregation: str) -> None:
    """The same drawn tokens with the same logits, with and without the world in between: the same loss and sums."""
    plain = sample(([3, 4], -1.0), ([8], -2.0))
    assert plain.rollout_logprobs.tolist() == TALK.rollout_logprobs.tolist()
    rows = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(1))
    found = []
    for one in (TALK, plain):
        logits = torch.zeros(len(one.ids), VOCAB)
        logits[np.flatnonzero(one.mask) - 1] = rows
        found.append(run([one], logits, aggregation)[:2])
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_a_rank_without_samples_has_nothing_to_sum() -> None:
    idle = TrainSample(np.zeros(1, np.int32), np.zeros(1, np.bool_), np.zeros(0, np.float32), np.zeros(0, np.float32))
    batch = collate([idle], CPU)
    assert batch.input_ids.tolist() == [[0]] and batch.targets.numel() == 0 and batch.mask().tolist() == [[0.0]]
