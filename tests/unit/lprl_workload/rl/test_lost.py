"""Failed and aborted episodes: counted, told, in no mean, no group and no loss; too many end the attempt."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.lprl_workload.rl.test_collect import PROMPTS, Echo, Source

from lprl_api.model.formats import Bf16
from lprl_api.spec.algorithm import Evaluation, Sampling
from lprl_workload.data import GenerationRequest, Prompt, SamplingParams
from lprl_workload.episode import BatchRef, EpisodeRef
from lprl_workload.process.errors import EpisodesFailedError
from lprl_workload.rl.collect import Collector
from lprl_workload.rl.evaluation import Evaluator
from lprl_workload.rl.prepare import prepare
from lprl_workload.train.advantage import signals
from lprl_workload.train.mismatch import MismatchSums

EPISODE = {"type": "python", "function": "a.b:c", "max_failed_fraction": 0.7}
Lost = Callable[[GenerationRequest], str | None]


class Failing(Echo):
    """Engines whose episodes of some prompts and samples fail or are aborted."""

    def __init__(self, lost: Lost) -> None:
        super().__init__()
        self.lost = lost

    def generate(self, requests: Sequence[GenerationRequest], params: SamplingParams) -> list[EpisodeRef]:
        found = []
        for request, ref in zip(requests, super().generate(requests, params), strict=True):
            how = self.lost(request)
            told = f"tool t: no answer for {request.prompt}" if how == "failed" else ""
            calls = (("failed", 1), ("ok", 2)) if how == "failed" else (("ok", 1),)
            found.append(replace(ref, finish=how or "stop", failure=told, calls=calls, turns=2 if how else 3))  # type: ignore[arg-type]
        return found


def some(request: GenerationRequest) -> str | None:
    """Of prompt 0 one fails and one is aborted, of prompt 1 three fail."""
    if request.prompt == 0:
        return {0: "failed", 1: "abort"}.get(request.sample)
    return "failed" if request.prompt == 1 and request.sample < 3 else None


def collector(bench: Callable[..., Any], episode: dict[str, Any] = EPISODE, **algorithm: Any) -> Collector:
    sizes = {"rollout_batch_size": 3, "samples_per_prompt": 4, "global_batch_size": 12}
    run = bench({"algorithm": sizes | algorithm, "episode": episode}).run

    def score(prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float]:
        return [float(n % 2) + 10 * p.index for n, p in enumerate(prompts)]

    return Collector(run, Source(), score, lambda ids: str(ids[0]))


def test_the_batch_holds_what_is_left_of_groups_that_still_compare_samples(bench: Callable[..., Any]) -> None:
    made = collector(bench)
    batch = made.collect(1, 0, Failing(some))
    kept = [(ref.prompt, ref.group, ref.sample) for ref in batch.episodes.episodes]
    assert kept == [(0, 0, 2), (0, 0, 3), *((2, 1, n) for n in range(4))], "prompt 1 has one left: its advantage would be 0"
    values, _ = signals(batch.episodes, bench({}).run.algorithm)
    assert values[0] == pytest.approx(-values[1]) != 0.0, "the advantage is over those that are left"


def test_lost_episodes_are_in_no_mean_and_all_of_them_are_counted(bench: Callable[..., Any]) -> None:
    batch = collector(bench).collect(1, 0, Failing(some))
    counts = {name: batch.metrics[name] for name in ("failed_episodes", "aborted_episodes", "tool_calls_ok", "tool_calls_failed")}
    assert counts == {"failed_episodes": 4, "aborted_episodes": 1, "tool_calls_ok": 4 * 2 + 8, "tool_calls_failed": 4}
    assert batch.metrics["turns_per_episode"] == pytest.approx((5 * 2 + 7 * 3) / 12)
    assert batch.metrics["reward"] == pytest.approx((0 + 1 + 10 + 21 + 20 + 21 + 20) / 7), "seven were scored, no zero stands for the rest"
    report = batch.episodes_report
    assert report is not None and report.failures == (
        "prompt 0, sample 0: tool t: no answer for 0",
        "prompt 1, sample 0: tool t: no answer for 1",
    )
    assert batch.seen.responses == 7
    assert [shown.response for shown in batch.seen.samples] == ["0", "1", "2"], "of each group the first that is left is shown"


def test_an_objective_without_groups_learns_from_a_single_one(bench: Callable[..., Any]) -> None:
    batch = collector(bench, name="reinforce-plus-plus").collect(1, 0, Failing(some))
    assert len(batch.episodes) == 2 + 1 + 4


def test_dynamic_sampling_draws_other_prompts_for_groups_that_are_lost(bench: Callable[..., Any]) -> None:
    batch = collector(bench, dynamic_sampling={"enabled": True}).collect(1, 0, Failing(some))
    assert [ref.prompt for ref in batch.episodes.episodes] == [0] * 2 + [2] * 4 + [3] * 4


@pytest.mark.parametrize(("limit", "ends"), [(0.42, False), (0.41, True)])
def test_more_than_the_share_allowed_ends_the_attempt_and_names_the_first(
    bench: Callable[..., Any], limit: float, ends: bool, caplog: pytest.LogCaptureFixture
) -> None:
    made = collector(bench, EPISODE | {"max_failed_fraction": limit})
    if not ends:
        with caplog.at_level(logging.WARNING):
            made.collect(1, 0, Failing(some))
        assert "step 1: 4 of 12 episodes failed, 1 aborted and take no part" in caplog.text
        return
    with pytest.raises(
        EpisodesFailedError, match=r"4 of 12 episodes failed, 1 aborted.*\(0\.41\); first: prompt 0, sample 0: tool t: no ans"
    ):
        made.collect(1, 0, Failing(some))


def test_a_step_of_which_nothing_is_left_ends_the_attempt_whatever_is_allowed(bench: Callable[..., Any]) -> None:
    made = collector(bench, EPISODE | {"max_failed_fraction": 1.0})
    with pytest.raises(EpisodesFailedError, match="no group is left to learn from"):
        made.collect(1, 0, Failing(lambda request: "failed"))


def test_an_evaluation_is_the_mean_of_what_did_not_fail_and_says_how_many_did(bench: Callable[..., Any]) -> None:
    settings = Evaluation.model_validate({"prompts": {"volume": "v", "path": "p"}, "samples_per_prompt": 4, "pass_at": [1, 2]})
    made = collector(bench)
    result = Evaluator(settings, Source(), made, Sampling(), 7).evaluate(3, Failing(some), Bf16())
    assert len(PROMPTS) == 4 and result.lost_episodes == 5
    scored = [0, 1, 10, 21, 20, 21, 20, 31, 30, 31, 30]
    assert result.reward == pytest.approx(sum(scored) / len(scored))
    assert result.pass_at["1"] == pytest.approx((1 / 2 + 1 + 1 + 1) / 4)
    assert result.pass_at["2"] == pytest.approx(1.0), "of the prompts that have two responses"


class Trainer:
    """Trainer ranks that agree with the engines."""

    def logprobs(self, batch: BatchRef, of: str, temperature: float) -> tuple[tuple[None, ...], list[MismatchSums]]:
        return (None,) * len(batch), [MismatchSums()] * len(batch)


@pytest.mark.parametrize(("size", "sizes"), [(12, [6]), (6, [3, 3]), (3, [2, 2, 2])])
def test_a_shorter_batch_makes_as_many_optimizer_steps_as_planned_of_its_own_size(
    bench: Callable[..., Any], size: int, sizes: list[int]
) -> None:
    batch = collector(bench).collect(1, 0, Failing(some)).episodes
    run = bench({"algorithm": {"rollout_batch_size": 3, "samples_per_prompt": 4, "global_batch_size": size}, "episode": EPISODE}, "p").run
    update, _ = prepare(batch, run, Trainer(), steps=1)  # type: ignore[arg-type]
    assert [step.last - step.first for step in update.plan.steps] == sizes, "lost episodes are in no denominator"
