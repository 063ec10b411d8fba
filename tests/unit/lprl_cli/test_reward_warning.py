"""Rewards that are all equal are seen by whoever runs a job by hand: in the lines, in the table, in the report."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from lprl_cli.live import LiveView, PlainView
from lprl_cli.report.page import render
from lprl_cli.runfolder import find

SAMPLE = {"prompt": "what is 1+1?", "response": "<think>", "label": "2", "reward": 0.0}


def document(*conditions: tuple[str, str, str]) -> dict[str, Any]:
    found = [{"type": "RewardSignal", "status": status, "reason": reason, "message": text} for status, reason, text in conditions]
    status = {"phase": "Running", "message": "training", "attempt": 1, "conditions": found}
    return {"metadata": {"name": "toy"}, "spec": {"algorithm": {"steps": 20}}, "status": status}


ZERO = ("False", "AllZero", "every reward is 0 (24 responses of 3 steps); as the scorer saw them: p")


def test_lines_warn_once_and_again_only_after_it_was_over(capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainView()
    longer = (*ZERO[:2], "every reward is 0 (32 responses of 4 steps); as the scorer saw them: p")
    for conditions in ((), (("Unknown", "Measuring", "x"),), (ZERO,), (longer,), (("True", "Varied", "rewards differ"),)):
        view.update(document(*conditions), [])
    out = capsys.readouterr().out
    assert out.count("warning: ") == 1 and f"warning: AllZero: {ZERO[2]}" in out


def test_the_table_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import rich.console

    out, real = io.StringIO(), rich.console.Console
    monkeypatch.setattr(rich.console, "Console", lambda: real(file=out, force_terminal=True, width=200))
    view = LiveView()
    view.update(document(ZERO), [])
    view.close()
    assert "warning: AllZero: every reward is 0" in out.getvalue()


@pytest.mark.parametrize("state", ["all-zero", "all-equal", "varied", None])
def test_the_report_shows_samples_as_the_scorer_saw_them(tmp_path: Path, state: str | None) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"attempt": 1, "step": 1, "reward": 0.0}) + "\n")
    if state is not None:
        signal = {"state": state, "value": 0.0, "steps": 3, "responses": 24, "samples": [SAMPLE]}
        (tmp_path / "rewards.json").write_text(json.dumps(signal))
    page = render(find(str(tmp_path)))
    shown = state in ("all-zero", "all-equal")
    assert ("Every reward of the first 3 steps was 0" in page) == shown
    assert ("what is 1+1?" in page and "&lt;think&gt;" in page) == shown


def test_the_report_shows_failed_episodes_of_runs_that_have_several_turns(tmp_path: Path) -> None:
    row = {"attempt": 1, "step": 1, "reward": 0.5}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert "<h2>Episodes</h2>" not in render(find(str(tmp_path)))
    several = {"failed_episodes": 3.0, "aborted_episodes": 0.0, "turns_per_episode": 2.1, "tool_calls_error": 1.0, "tool_calls_failed": 3.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row | several) + "\n")
    shown = render(find(str(tmp_path)))
    assert "<h2>Episodes</h2>" in shown and "calls that failed" in shown
