import pytest
import torch

from lprl_workload.data import SamplingParams
from lprl_workload.rollout import sampling
from lprl_workload.rollout.seeds import sample_seed, uniforms

ONE = SamplingParams(1.0, 1.0, None, 4)


def test_seeds_are_distinct_and_fit_int64() -> None:
    seeds = {sample_seed(r, s, p, i) for r in range(3) for s in range(5) for p in range(20) for i in range(8)}
    assert len(seeds) == 3 * 5 * 20 * 8 and all(0 <= seed < 2**63 for seed in seeds)
    assert sample_seed(1, 2, 3, 4) == sample_seed(1, 2, 3, 4) != sample_seed(1, 2, 4, 3)


def splitmix(seed: int, counter: int) -> int:
    mask = 2**64 - 1
    z = (seed + (counter + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_uniforms_are_splitmix64_and_uniform() -> None:
    seeds = torch.tensor([0, 1, 2**62 + 12345, 2**63 - 1])
    for counter in (0, 1, 9999):
        got = uniforms(seeds, torch.full_like(seeds, counter))
        assert got.tolist() == [((splitmix(s, counter) >> 11) + 0.5) * 2**-53 for s in seeds.tolist()]
    many = uniforms(torch.full((100_000,), 7), torch.arange(100_000))
    assert many.min() > 0 and many.max() < 1
    assert torch.allclose(torch.histc(many, 10, 0, 1), torch.full((10,), 10_000.0, dtype=torch.float64), rtol=0.05)


def test_drawn_frequencies_are_the_softmax_at_the_temperature() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -30.0])
    rows = 40_000
    params = SamplingParams(0.7, 1.0, None, 1)
    drawn = sampling.draw(logits.expand(rows, -1), params, torch.arange(rows), torch.zeros(rows, dtype=torch.long))
    want = (logits / 0.7).softmax(-1)
    assert torch.allclose(torch.bincount(drawn.tokens, minlength=5) / rows, want, atol=0.01)
    assert torch.allclose(drawn.logprobs, want.log()[drawn.tokens], atol=1e-6)


@pytest.mark.parametrize(
    ("params", "allowed"),
    [
        pytest.param(SamplingParams(1.0, 1.0, 2, 1), {1, 3}, id="top-k"),
        pytest.param(SamplingParams(1.0, 1.0, 99, 1), {0, 1, 2, 3}, id="top-k-beyond-the-vocabulary"),
        pytest.param(SamplingParams(1.0, 0.5, None, 1), {3}, id="top-p-first-token-reaches-it"),
        pytest.param(SamplingParams(1.0, 0.6, None, 1), {1, 3}, id="top-p"),
        pytest.param(SamplingParams(1.0, 0.001, None, 1), {3}, id="top-p-keeps-one"),
        pytest.param(SamplingParams(1.0, 0.8, 2, 1), {1, 3}, id="top-p-of-what-top-k-left"),
    ],
)
def test_filters_keep_what_they_should_and_logprobs_ignore_them(params: SamplingParams, allowed: set[int]) -> None:
    probs = torch.tensor([0.05, 0.3, 0.1, 0.55])
    drawn = sampling.draw(probs.log().expand(4000, -1), params, torch.arange(4000), torch.zeros(4000, dtype=torch.long))
    assert set(drawn.tokens.tolist()) == allowed
    assert torch.allclose(drawn.logprobs, probs.log()[drawn.tokens], atol=1e-6)


def test_greedy_takes_the_likeliest_and_reports_at_temperature_one() -> None:
    logits = torch.randn(64, 33, generator=torch.Generator().manual_seed(0))
    drawn = sampling.draw(logits, SamplingParams(0.0, 0.3, 1, 1), torch.arange(64), torch.arange(64))
    assert torch.equal(drawn.tokens, logits.argmax(-1))
    assert torch.equal(drawn.logprobs, logits.log_softmax(-1).max(-1).values)


def test_a_row_does_not_depend_on_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(50, 20, generator=torch.Generator().manual_seed(1))
    seeds, places = torch.arange(50) * 977, torch.arange(50) % 5
    whole = sampling.draw(logits, ONE, seeds, places)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(2))
    mixed = sampling.draw(logits[order], ONE, seeds[order], places[order])
    assert torch.equal(whole.tokens[order], mixed.tokens)
    monkeypatch.setattr(sampling, "MAX_ELEMENTS", 20 * 7)
    parts = sampling.draw(logits, ONE, seeds, places)
    assert torch.equal(whole.tokens, parts.tokens) and torch.equal(whole.logprobs, parts.logprobs)
