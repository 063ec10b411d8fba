"""A run whose rewards are all equal says so: in the log, in the report's file, to the operator; once, over restarts, until they differ."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]
EVERY = {"algorithm": {"steps": 6}, "checkpoint": {"every_steps": 1}, "evaluation": None}


def scores(*by_step: float | None) -> Callable[..., list[float]]:
    """Rewards by call: a number for all, None for rewards that differ; the last one goes on."""
    calls = iter(range(1000))

    def score(prompts: Any, texts: list[str]) -> list[float]:
        value = by_step[min(next(calls), len(by_step) - 1)]
        return [float(n % 2) if value is None else value for n in range(len(texts))]

    return score


def state_of(loop: Any) -> str:
    signal = loop._reporter.progress.reward_signal
    assert signal == loop.state.rewards
    return str(signal.state)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING and "every reward" in r.getMessage()]


def test_rewards_that_are_all_zero_are_told_once_with_samples_as_the_scorer_saw_them(bench: Run, caplog: pytest.LogCaptureFixture) -> None:
    run = bench(EVERY)
    run.score = scores(0.0)
    loop = run.attempt()[0]
    with caplog.at_level(logging.INFO):
        loop.run(lambda: False)
    assert state_of(loop) == "all-zero" and loop.state.rewards.steps == 6
    (told,) = warnings(caplog)
    first, *samples = told.split("\n")
    assert first.startswith("every reward of the first 3 steps is 0 (18 responses)") and len(samples) == 3
    assert samples[0].startswith("prompt ...'p0', response '") and samples[0].endswith("label '0': reward 0")
    written = json.loads((run.root / "rewards.json").read_text())
    assert written["state"] == "all-zero" and [s["prompt"] for s in written["samples"]] == ["p0", "p1", "p2"]


def test_a_restart_goes_on_from_what_the_first_steps_of_the_run_saw(bench: Run, caplog: pytest.LogCaptureFixture) -> None:
    run = bench(EVERY)
    run.score = scores(0.0)
    stopped = run.attempt()[0]
    stopped.run(lambda: stopped.state.step >= 2)
    assert state_of(stopped) == "measuring" and not (run.root / "rewards.json").exists()
    again = run.attempt(2)[0]
    seen: list[str] = []
    with caplog.at_level(logging.INFO):
        again.run(lambda: again.state.step >= 3, lambda step: seen.append(again._reporter.progress.reward_signal))
    assert seen[0].steps == 2 and state_of(again) == "all-zero" and again.state.rewards.steps == 3
    run.score = scores(None)
    third = run.attempt(3)[0]
    third.run(lambda: False, lambda step: seen.append(third._reporter.progress.reward_signal))
    assert seen[1].state == "all-zero", "known before a step of the attempt is made"
    assert state_of(third) == "varied" and not (run.root / "rewards.json").exists()


def test_it_ends_when_rewards_begin_to_differ_and_stays_ended(bench: Run, caplog: pytest.LogCaptureFixture) -> None:
    run = bench(EVERY)
    run.score = scores(0.0, 0.0, 0.0, 0.0, None, 1.0)
    loop = run.attempt()[0]
    with caplog.at_level(logging.INFO):
        loop.run(lambda: False)
    assert state_of(loop) == "varied" and loop.state.rewards.samples == () and len(warnings(caplog)) == 1
    assert "rewards differ from here on" in caplog.text


def test_a_healthy_run_says_nothing(bench: Run, caplog: pytest.LogCaptureFixture) -> None:
    run = bench(EVERY)
    loop = run.attempt()[0]
    with caplog.at_level(logging.INFO):
        loop.run(lambda: False)
    assert state_of(loop) == "varied" and not warnings(caplog) and "rewards differ" not in caplog.text
    assert not (run.root / "rewards.json").exists()


def test_rewards_of_the_run_it_was_loaded_from_say_nothing(bench: Run) -> None:
    first = bench(EVERY, "first")
    first.attempt()[0].run(lambda: False)
    second = bench(EVERY | {"algorithm": {"steps": 9}}, "second")
    second.score = scores(0.0)
    loop = second.attempt(load_from=first.root / "step-000006")[0]
    loop.run(lambda: False)
    assert state_of(loop) == "all-zero" and loop.state.rewards.steps == 3 and loop.state.step == 9


def test_dynamic_sampling_counts_what_it_filters_out(bench: Run) -> None:
    settings = {"algorithm": {"steps": 1, "dynamic_sampling": {"enabled": True, "max_rounds": 4}}, "evaluation": None}
    run = bench(settings)
    run.score = scores(0.0, 0.0, 0.0, 1.0)
    loop = run.attempt()[0]
    loop.run(lambda: False)
    assert state_of(loop) == "varied" and loop.state.rewards.responses == 24


def test_a_held_out_evaluation_of_zeros_is_told_once_an_attempt(bench: Run, caplog: pytest.LogCaptureFixture) -> None:
    run = bench({"algorithm": {"steps": 4}, "evaluation": {"every_steps": 1}})
    run.score = scores(0.0)
    with caplog.at_level(logging.INFO):
        run.attempt()[0].run(lambda: False)
    told = [text for text in warnings(caplog) if text.startswith("held-out")]
    assert len(told) == 1 and told[0].startswith("held-out evaluation after step 0: every reward is 0 (3 responses)")
    assert "label '0': reward 0" in told[0]


def test_a_checkpoint_from_before_is_read(bench: Run) -> None:
    run = bench(EVERY)
    run.attempt()[0].run(lambda: run_steps(run) >= 2)
    for state in run.root.glob("step-*/state.json"):
        document = json.loads(state.read_text())
        del document["rewards"]
        state.write_text(json.dumps(document))
    from lprl_workload.rl.run_state import RunState

    assert RunState.read(next(run.root.glob("step-*"))).rewards.state == "measuring"


def run_steps(run: Any) -> int:
    return len(list(run.root.glob("step-*")))
