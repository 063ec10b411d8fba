"""The guard as a table: values in, states and actions out."""

from typing import Literal

import pytest

from lprl_api.spec.topology import Stability
from lprl_workload.metrics.stability import Action, Guard, GuardState, observe

Name = Literal["warn", "correct", "hold", "rollback", "fallback-bf16"]


def settings(action: Name, **changes: object) -> Stability:
    fields = {"action": action, "baseline_steps": 3, "patience": 2, "relative_limit": 5.0, "absolute_limit": None}
    return Stability.model_validate(fields | changes)


def play(values: list[float], rules: Stability) -> tuple[Guard, list[Action]]:
    guard, actions = Guard(), []
    for step, value in enumerate(values, start=1):
        guard, action = observe(guard, rules, step, value)
        actions.append(action)
    return guard, actions


CALM = [1.0, 1.2, 0.8]


@pytest.mark.parametrize(
    ("values", "rules", "actions", "state", "since"),
    [
        pytest.param([1.0, 1.2], settings("warn"), ["none"] * 2, "measuring", None, id="baseline-not-complete"),
        pytest.param([*CALM, 4.9], settings("warn"), ["none"] * 4, "stable", None, id="below-five-times-the-median"),
        pytest.param([*CALM, 5.1], settings("warn"), ["none"] * 4, "drifting", 4, id="one-step-is-no-drift"),
        pytest.param([*CALM, 5.1, 1.0, 5.1], settings("warn"), ["none"] * 6, "drifting", 6, id="not-consecutive"),
        pytest.param([*CALM, 5.1, 6.0], settings("warn"), [*["none"] * 4, "warn"], "drifting", 4, id="warn"),
        pytest.param([*CALM, 9, 9, 9, 9], settings("warn"), [*["none"] * 4, "warn", "none", "none"], "drifting", 4, id="warn-once"),
        pytest.param([*CALM, 9, 9, 1], settings("warn"), [*["none"] * 4, "warn", "none"], "stable", None, id="warn-recovers"),
        pytest.param([*CALM, 9, 9, 9], settings("correct"), [*["none"] * 4, "correct", "none"], "corrected", 4, id="correct"),
        pytest.param([*CALM, 9, 9, 9, 1], settings("hold"), [*["none"] * 4, "hold", "none", "release"], "stable", None, id="hold-releases"),
        pytest.param([*CALM, 9, 9, 9], settings("rollback"), [*["none"] * 4, "rollback", "none"], "rolled-back", 4, id="rollback-once"),
        pytest.param([*CALM, 9, 9, 1], settings("fallback-bf16"), [*["none"] * 4, "fallback-bf16", "none"], "fallback-bf16", 4, id="final"),
        pytest.param(
            [3.0, 3.0], settings("warn", absolute_limit=2.0), ["none", "warn"], "drifting", 1, id="absolute-limit-needs-no-baseline"
        ),
        pytest.param([1e-14, 1e-14, 1e-14, 4e-6], settings("warn"), ["none"] * 4, "stable", None, id="rounding-noise-is-no-baseline"),
        pytest.param([0.0, 0.0, 0.0, 6e-6], settings("warn"), ["none"] * 4, "drifting", 4, id="above-the-noise-floor"),
        pytest.param([*CALM, 99.0], settings("warn", relative_limit=None), ["none"] * 4, "stable", None, id="no-limit"),
    ],
)
def test_observe(values: list[float], rules: Stability, actions: list[Action], state: GuardState, since: int | None) -> None:
    guard, found = play(values, rules)
    assert found == actions
    assert (guard.state, guard.since_step) == (state, since)
    assert guard.corrected == (state in ("corrected", "rolled-back"))


def test_report_says_what_was_compared() -> None:
    rules = settings("warn")
    report = play([*CALM, 4.0], rules)[0].report(rules)
    assert (report.baseline, report.limit, report.value, report.state) == (1.0, 5.0, 4.0, "stable")
