"""The stability guard where numbers are none, and where a rolled-back run goes on."""

import json
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest

from lprl_api.spec.topology import Stability
from lprl_workload.metrics.stability import Guard, observe
from lprl_workload.rl.run_state import RunState

Make = Callable[..., Any]
GUARDED = {"algorithm": {"global_batch_size": None, "steps": 12}, "evaluation": None}


def guarded(action: str, **stability: Any) -> dict[str, Any]:
    return GUARDED | {"stability": {"action": action} | stability}


def never() -> bool:
    return False


def broken_from(step: int, value: float) -> Callable[[int], float]:
    return lambda n: 0.001 if n < step else value


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=["nan", "inf"])
def test_a_mismatch_that_is_no_number_is_over_every_limit(bench: Make, new_world: Make, value: float) -> None:
    """An engine that returns NaN log-probabilities leaves the loss finite: nothing else would see it."""
    loop, _, trainer, _ = bench(guarded("correct")).attempt(1, new_world(k3=broken_from(9, value)))
    assert loop.run(never) == "finished"
    guard = loop.state.guard
    assert (guard.state, guard.since_step) == ("corrected", 9) and trainer.corrected


@pytest.mark.parametrize(
    "settings", [{"absoluteLimit": None, "relativeLimit": None}, {"absoluteLimit": None}], ids=["no limit", "relative"]
)
def test_what_is_no_number_needs_no_limit_and_is_no_part_of_the_baseline(settings: dict[str, Any]) -> None:
    stability = Stability.model_validate({**settings, "baselineSteps": 2, "patience": 2})
    guard, action = observe(Guard(), stability, 1, math.nan)
    assert (guard.state, guard.over, guard.first_values, action) == ("drifting", 1, (), "none")
    guard, action = observe(guard, stability, 2, math.inf)
    assert action == stability.action and guard.report(stability).value is None


def test_a_guard_that_saw_no_number_is_written_and_read_again(tmp_path: Any) -> None:
    stability = Stability.model_validate({"patience": 1, "action": "correct"})
    state = RunState(guard=observe(Guard(), stability, 4, math.nan)[0])
    state.write(tmp_path)
    assert RunState.read(tmp_path) == state


def test_log_probabilities_that_are_no_numbers_are_named_and_counted(
    bench: Make, new_world: Make, caplog: pytest.LogCaptureFixture
) -> None:
    run = bench(GUARDED | {"algorithm": {"global_batch_size": None, "steps": 1}})
    world = new_world()
    world.logprobs = lambda number: (-0.5, math.nan) if number == 1 else (-0.5, -0.25)
    loop, _, _, _ = run.attempt(1, world)
    with caplog.at_level(logging.WARNING):
        loop.run(never)
    (said,) = [r.message for r in caplog.records if "log-prob" in r.message]
    assert "1 of 12 log-probabilities" in said and "prompt 0, response 1: 1 of 2 (engine 0, weight version 0)" in said
    assert run.series()[0]["rollout_nonfinite"] == 1


def test_rollback_of_a_run_begun_from_another_checkpoint_returns_there(bench: Make, new_world: Make) -> None:
    before = bench(GUARDED | {"checkpoint": {"every_steps": 12}}, "before")
    loop, _, earlier, _ = before.attempt(1, new_world())
    loop.run(never)
    source = before.root / "step-000012"
    run = bench(guarded("rollback") | {"algorithm": {"global_batch_size": None, "steps": 20}, "checkpoint": {"every_steps": 50}})
    loop, world, trainer, _ = run.attempt(1, new_world(k3=broken_from(15, 3.0)), load_from=source)
    loop.run(lambda: loop.state.step == 12 and loop.state.guard.state == "rolled-back")
    assert "rebuild" not in world.journal, "not the untrained model"
    assert (trainer.w, trainer.steps, loop.state.step) == (earlier.w, earlier.steps, 12)
    kept = json.loads((run.root / "step-000012" / "state.json").read_text())
    assert kept["position"] == RunState.read(source).position
    assert [row["step"] for row in run.series()] == [], "what was trained on the drift is dropped"
