"""The driver's log tells of steps, and no step can flood it."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from lprl_workload.rl import step_row


@pytest.mark.parametrize(
    ("every_s", "lines"), [pytest.param(0.0, 6, id="slow-steps-are-all-told"), pytest.param(3600.0, 2, id="of-fast-ones-some")]
)
def test_the_log_has_the_first_and_the_last_step_and_a_bounded_number_between(
    bench: Callable[..., Any], every_s: float, lines: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(step_row, "LOG_EVERY_S", every_s)
    with caplog.at_level(logging.INFO, logger="lprl_workload.rl.step_row"):
        bench({"algorithm": {"steps": 6}}).attempt()[0].run(lambda: False)
    told = [r.getMessage() for r in caplog.records if r.getMessage().startswith("step ")]
    assert len(told) == lines
    assert told[0].startswith("step 1/6: reward ")
    assert told[-1].startswith("step 6/6: reward ")
    assert "tokens/s" in told[-1] and "\n" not in told[-1]
