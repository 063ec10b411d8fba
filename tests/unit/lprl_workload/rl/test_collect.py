"""Rollout batches: seeds, groups, dynamic sampling; and the held-out evaluation."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lprl_api.model.formats import Bf16
from lprl_api.spec.algorithm import Evaluation, Sampling
from lprl_workload.data import Completion, GenerationRequest, Prompt, SamplingParams
from lprl_workload.rl.collect import Collector, requests_for
from lprl_workload.rl.evaluation import Evaluator
from lprl_workload.rollout.seeds import sample_seed

PROMPTS = [Prompt(n, f"p{n}", (n,), str(n)) for n in range(4)]


def echo(requests: Sequence[GenerationRequest], params: SamplingParams) -> list[Completion]:
    return [Completion((r.prompt_ids[0], r.seed % 1000), (0.0, 0.0), "length", 0, 0) for r in requests]


def test_seeds_follow_from_step_prompt_and_sample_only() -> None:
    seen: Counter[int] = Counter()
    first = requests_for(PROMPTS[:2], 2, 7, 3, seen)
    assert [r.seed for r in first] == [sample_seed(7, 3, p, n) for p in (0, 1) for n in (0, 1)]
    again = requests_for(PROMPTS[:1], 2, 7, 3, seen)
    assert [r.seed for r in again] == [sample_seed(7, 3, 0, n) for n in (2, 3)], "met again in one step: fresh seeds"


class Source:
    def __len__(self) -> int:
        return len(PROMPTS)

    def take(self, position: int, count: int) -> tuple[list[Prompt], int]:
        return [PROMPTS[n % 4] for n in range(position, position + count)], position + count


def collector(bench: Callable[..., Any], algorithm: dict[str, Any], informative: set[int]) -> Collector:
    """Groups of prompts in `informative` get rewards 0, 1, 0, 1, ...; the others 1, 1, ..."""
    run = bench({"algorithm": algorithm}).run

    def score(prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float]:
        return [float(n % 2) if p.index in informative else 1.0 for n, p in enumerate(prompts)]

    return Collector(run, Source(), score, lambda ids: str(ids[0]))


@pytest.mark.parametrize(
    ("dynamic", "informative", "prompts", "position"),
    [
        pytest.param({}, set(), [0, 1, 2], 3, id="off-keeps-everything"),
        pytest.param({"enabled": True}, {0, 1, 2}, [0, 1, 2], 3, id="full-at-once"),
        pytest.param({"enabled": True}, {1, 2}, [1, 2, 1], 6, id="second-round-fills-up"),
        pytest.param({"enabled": True, "over_sampling_batch_size": 1}, {1, 3}, [1, 3, 1], 6, id="one-prompt-at-a-time"),
        pytest.param({"enabled": True, "max_rounds": 2}, {3}, [3, 0, 1], 6, id="rounds-spent-fills-with-what-there-is"),
        pytest.param({"enabled": True, "over_sampling_batch_size": 4}, {0, 1, 2, 3}, [0, 1, 2], 4, id="surplus-is-dropped"),
    ],
)
def test_dynamic_sampling(
    bench: Callable[..., Any], dynamic: dict[str, Any], informative: set[int], prompts: list[int], position: int
) -> None:
    batch = collector(bench, {"dynamic_sampling": dynamic}, informative).collect(1, 0, echo)
    assert [s.prompt_index for s in batch.samples] == [p for p in prompts for _ in range(2)]
    assert [(s.group, s.sample) for s in batch.samples] == [(g, n) for g in range(3) for n in range(2)]
    assert batch.position == position


def test_metrics_cover_everything_generated(bench: Callable[..., Any]) -> None:
    batch = collector(bench, {"dynamic_sampling": {"enabled": True}}, {0, 1, 2}).collect(1, 3, echo)
    assert batch.metrics["reward"] == pytest.approx((0.5 * 4 + 1.0 * 2) / 6, abs=0.2)
    assert batch.metrics["truncated_fraction"] == 1.0 and batch.metrics["response_tokens"] == 2.0
    assert batch.generated_tokens == 2 * 2 * 6


def test_evaluation_is_greedy_counts_pass_at_k_and_uses_seeds_of_its_own(bench: Callable[..., Any]) -> None:
    asked: list[tuple[GenerationRequest, SamplingParams]] = []

    def generate(requests: Sequence[GenerationRequest], params: SamplingParams) -> list[Completion]:
        asked.extend((r, params) for r in requests)
        return echo(requests, params)

    evaluation = Evaluation.model_validate({"prompts": {"volume": "v", "path": "p"}, "samplesPerPrompt": 4, "passAt": [1, 2, 4]})
    made = collector(bench, {}, {0, 1})
    result = Evaluator(evaluation, Source(), made, Sampling(), 0).evaluate(5, generate, Bf16())
    assert result.reward == 0.75
    assert result.pass_at == {"1": 0.75, "2": pytest.approx((5 / 6 * 2 + 2) / 4), "4": 1.0}
    assert {params.temperature for _, params in asked} == {0.0}
    training = {sample_seed(0, step, p.index, n) for step in range(20) for p in PROMPTS for n in range(8)}
    assert not training & {request.seed for request, _ in asked}
