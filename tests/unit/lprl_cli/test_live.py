"""The live table and its plain twin."""

import io
from typing import Any

import pytest

from lprl_cli.live import LiveView, PlainView, cells, duration, last_step, number, seconds_left

ROWS: list[dict[str, Any]] = [
    {"step": i, "reward": 0.1 * i, "k3": 1e-4, "logprob_diff": 0.01, "tokens_per_second": 1234.5, "sync_seconds": 0.05, "step_seconds": 2.0}
    for i in range(1, 21)
]


def document(phase: str, message: str = "") -> dict[str, Any]:
    return {
        "metadata": {"name": "toy"},
        "spec": {"algorithm": {"steps": 20}},
        "status": {"phase": phase, "message": message, "attempt": 1, "precision": "bf16/bf16"},
    }


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(None, 3, "-"), (0.12345, 3, "0.123"), (0.0, 3, "0.000"), (1e-7, 5, "1.0e-07"), (12345.6, 0, "12,346"), (3, 3, "3")],
)
def test_number(value: float | None, digits: int, text: str) -> None:
    assert number(value, digits) == text


def test_time_left_is_the_mean_step_times_the_steps_to_go() -> None:
    assert seconds_left(ROWS, 9, 20) == pytest.approx(20.0)
    assert seconds_left(ROWS, 19, 20) == 0
    assert seconds_left([{"step": 1}], 0, 20) is None
    assert duration(3661) == "1:01:01" and duration(None) == "-"


def test_cells() -> None:
    assert cells(ROWS[0], 20, 38.0) == ["1/20", "0.100", "0.00010", "0.01000", "1,234", "0.050", "0:00:38"]


def test_plain_view_prints_each_change_once(capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainView()
    for shown in (document("Pending"), document("Pending"), document("Converting", "1/2 shards"), document("Converting", "2/2 shards")):
        view.update(shown, [])
    view.update(document("Running"), ROWS[:1])
    view.update(document("Running", "step 2"), ROWS[:2])
    out = capsys.readouterr().out
    assert [out.count(word) for word in ("Pending", "Converting", "Running", "1/20", "2/20", "time left")] == [1, 2, 1, 1, 1, 1]


def test_live_view_shows_phases_and_the_newest_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    import rich.console

    out = io.StringIO()
    real = rich.console.Console
    monkeypatch.setattr(rich.console, "Console", lambda: real(file=out, force_terminal=True, width=110))
    view = LiveView()
    view.update(document("Running"), ROWS)
    view.update(document("Succeeded", "20/20 steps"), ROWS)
    view.close()
    text = out.getvalue()
    assert "20/20" in text and "Succeeded" in text and "mismatch k3" in text
    assert " 3/20" not in text


def test_the_last_step_is_told_with_its_staleness_idle_shares_and_lost_episodes() -> None:
    training = {"staleness": "0.97, at most 1", "trainerIdle": "5%", "enginesIdle": "6%", "lostEpisodes": "2 failed", "reward": "0.5"}
    assert last_step(training) == "staleness 0.97, at most 1; trainer idle 5%; engines idle 6%; episodes lost: 2 failed"
    assert last_step({"reward": "0.5"}) == ""
