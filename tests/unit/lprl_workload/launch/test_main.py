"""What the driver refuses before it writes anything."""

import json
import shutil
from pathlib import Path

import pytest

from lprl_api.names import ENV_ATTEMPT, ENV_RECORDED_STEP, ExitCode, Reason
from lprl_api.wire.progress import Termination
from lprl_fixtures.runs import VOLUME, run_config, write_inputs
from lprl_workload.__main__ import main
from lprl_workload.launch.main import parse


@pytest.mark.parametrize("value", ["abc", "0", "-1", "1.5", "٣"])
def test_a_wrong_attempt_number_is_a_user_error(value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(ENV_ATTEMPT, value)
    assert main(["train", "--config", "nowhere.json"]) == ExitCode.USER_ERROR
    err = capsys.readouterr().err
    assert f"error: {ENV_ATTEMPT}: got {value!r}; needs a whole number" in err and "Traceback" not in err


@pytest.mark.parametrize(("value", "step"), [("", 0), ("0", 0), ("12", 12)])
def test_the_step_to_be_found_may_be_told_by_the_pod(value: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_RECORDED_STEP, value)
    assert parse(["--config", "nowhere.json"]).recorded_step == step
    assert parse(["--config", "nowhere.json", "--recorded-step", "3"]).recorded_step == 3


@pytest.mark.parametrize("found", ["no such folder", "no config.json in it"])
def test_a_missing_model_is_said_before_the_fence(found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_inputs(tmp_path, train=4, heldout=2)
    config, log, model = tmp_path / "run.json", tmp_path / "log", tmp_path / VOLUME / "model"
    config.write_text(json.dumps(run_config(tmp_path).document()))
    shutil.rmtree(model)
    if found != "no such folder":
        model.mkdir()
    monkeypatch.setenv("LPRL_VOLUMES_ROOT", str(tmp_path))
    monkeypatch.setenv("LPRL_TERMINATION_LOG", str(log))
    assert main(["train", "--config", str(config), "--attempt", "1", "--in-process"]) == ExitCode.USER_ERROR
    said = Termination.model_validate_json(log.read_text())
    assert said.reason == Reason.USER_ERROR and f"RunConfig.modelPath {VOLUME}:model: {found} ({model})" in said.message
    assert not (tmp_path / VOLUME / "runs").exists(), "no FENCE yet"
