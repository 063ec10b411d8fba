"""Rollout batches: seeds, groups, dynamic sampling; and the held-out evaluation."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lprl_api.model.formats import Bf16
from lprl_api.spec.algorithm import Evaluation, Sampling
from lprl_workload.data import GenerationRequest, Prompt, SamplingParams
from lprl_workload.episode import Episode, EpisodeRef, described, drawn, token_ids, world
from lprl_workload.rl import collect
from lprl_workload.rl.collect import Collector, requests_for
from lprl_workload.rl.evaluation import Evaluator
from lprl_workload.rollout.seeds import sample_seed

PROMPTS = [Prompt(n, f"p{n}", token_ids((n,)), str(n)) for n in range(4)]


class Echo:
    """Engines that answer at once, and note what was asked and how much was read at a time."""

    def __init__(self) -> None:
        self.asked: list[tuple[GenerationRequest, SamplingParams]] = []
        self.fetched: list[int] = []

    def generate(self, requests: Sequence[GenerationRequest], params: SamplingParams) -> list[EpisodeRef]:
        self.asked += [(request, params) for request in requests]
        found = []
        for r in requests:
            turns = world(r.prompt_ids), drawn([r.prompt_ids[0], r.seed % 1000], [0.0, 0.0], 0)
            episode = Episode(r.prompt, r.group, r.sample, turns, "length")
            found.append(described(episode, episode))
        return found

    def fetch(self, refs: Sequence[EpisodeRef]) -> list[Episode]:
        self.fetched.append(len(refs))
        return [ref.ref for ref in refs]


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


def test_rewards_that_differ_by_rounding_only_are_equal(bench: Callable[..., Any]) -> None:
    """Their advantages would be noise blown up to one."""
    run = bench({"algorithm": {"rollout_batch_size": 1, "samples_per_prompt": 2, "dynamic_sampling": {"enabled": True}}}).run

    def score(prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float]:
        return [0.1 + 0.2, 0.3] if prompts[0].index == 0 else [0.0, 1.0]

    batch = Collector(run, Source(), score, lambda ids: str(ids[0])).collect(1, 0, Echo())
    assert {ref.prompt for ref in batch.episodes.episodes} == {1}


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
    batch = collector(bench, {"dynamic_sampling": dynamic}, informative).collect(1, 0, Echo())
    assert [s.prompt for s in batch.episodes.episodes] == [p for p in prompts for _ in range(2)]
    assert [(s.group, s.sample) for s in batch.episodes.episodes] == [(g, n) for g in range(3) for n in range(2)]
    assert batch.position == position


def test_metrics_cover_everything_generated(bench: Callable[..., Any]) -> None:
    batch = collector(bench, {"dynamic_sampling": {"enabled": True}}, {0, 1, 2}).collect(1, 3, Echo())
    assert batch.metrics["reward"] == pytest.approx((0.5 * 4 + 1.0 * 2) / 6, abs=0.2)
    assert batch.metrics["truncated_fraction"] == 1.0 and batch.metrics["response_tokens"] == 2.0
    assert batch.generated_tokens == 2 * 2 * 6


def test_evaluation_is_greedy_counts_pass_at_k_and_uses_seeds_of_its_own(bench: Callable[..., Any]) -> None:
    engines = Echo()
    evaluation = Evaluation.model_validate({"prompts": {"volume": "v", "path": "p"}, "samplesPerPrompt": 4, "passAt": [1, 2, 4]})
    made = collector(bench, {}, {0, 1})
    result = Evaluator(evaluation, Source(), made, Sampling(), 0).evaluate(5, engines, Bf16())
    assert result.reward == 0.75
    assert result.pass_at == {"1": 0.75, "2": pytest.approx((5 / 6 * 2 + 2) / 4), "4": 1.0}
    assert {params.temperature for _, params in engines.asked} == {0.0}
    training = {sample_seed(0, step, p.index, n) for step in range(20) for p in PROMPTS for n in range(8)}
    assert not training & {request.seed for request, _ in engines.asked}


def test_episodes_are_scored_in_pieces_and_every_reward_is_its_own(bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made = collector(bench, {}, set())
    made._score = lambda prompts, texts: [float(int(text) + 10 * p.index) for p, text in zip(prompts, texts, strict=True)]
    whole = made.collect(1, 0, Echo())
    monkeypatch.setattr(collect, "PIECE_TOKENS", 7)  # an episode has three tokens
    engines = Echo()
    again = made.collect(1, 0, engines)
    assert engines.fetched == [2, 2, 2]
    assert again.episodes.rewards == whole.episodes.rewards == [11.0 * p for p in (0, 0, 1, 1, 2, 2)]
    assert [bool(e.excerpt) for e in again.episodes.episodes] == [True, False] * 3, "text of a group's first sample only"


@pytest.mark.parametrize(("lengths", "limit"), [([], 5), ([9], 5), ([2, 2, 2], 4), ([1, 9, 1], 5), ([0, 0, 6, 0], 5)])
def test_pieces_tile_and_only_one_episode_exceeds_the_limit(lengths: list[int], limit: int) -> None:
    found = [lengths[piece] for piece in collect.pieces(lengths, limit)]
    assert [n for piece in found for n in piece] == lengths and all(found)
    assert all(len([n for n in piece if n]) == 1 or sum(piece) <= limit for piece in found)
