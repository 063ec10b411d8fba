"""What an attempt is told beside its RunConfig goes before it."""

import json
from pathlib import Path

import pytest

from lprl_api.names import ENV_LIVE_SETTINGS, ExitCode
from lprl_api.spec.topology import Stability
from lprl_api.wire.runconfig import LiveSettings, RunConfig
from lprl_fixtures.runs import run_config, write_inputs
from lprl_operator.resources.runconfig import live_settings
from lprl_workload.__main__ import main
from lprl_workload.config import of_this_attempt


@pytest.fixture
def given(tmp_path: Path) -> RunConfig:
    write_inputs(tmp_path, train=4, heldout=2)
    return run_config(tmp_path)


def test_the_run_is_the_attempts(given: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = LiveSettings(steps=given.algorithm.steps + 7, stability=Stability(action="hold"), refill_steps=3, stall_seconds=77)
    monkeypatch.setenv(ENV_LIVE_SETTINGS, live_settings(wanted.put_into(given)))
    found = of_this_attempt(given)
    assert LiveSettings.of(found) == wanted
    assert LiveSettings.of(given).put_into(found) == given, "nothing else differs"


@pytest.mark.parametrize("text", [None, ""])
def test_without_it_the_run_is_as_it_is_written(text: str | None, given: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod of an earlier operator, or a run by hand."""
    monkeypatch.delenv(ENV_LIVE_SETTINGS, raising=False)
    if text is not None:
        monkeypatch.setenv(ENV_LIVE_SETTINGS, text)
    assert of_this_attempt(given) is given


def test_the_driver_reads_it_and_says_what_does_not_fit(given: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, log = tmp_path / "run.json", tmp_path / "log"
    config.write_text(json.dumps(given.document()))
    monkeypatch.setenv(ENV_LIVE_SETTINGS, '{"steps": 0}')
    monkeypatch.setenv("LPRL_TERMINATION_LOG", str(log))
    assert main(["train", "--config", str(config), "--attempt", "1", "--in-process"]) == ExitCode.USER_ERROR
    assert f"{ENV_LIVE_SETTINGS}: steps: " in log.read_text() and "use one version of both" in log.read_text()
