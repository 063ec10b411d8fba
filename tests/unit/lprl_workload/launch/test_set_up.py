"""An error of code while a run is set up: told at once and by its last line, unless there is something to go on from."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from lprl_api.errors import UserError
from lprl_api.spec.topology import Stability
from lprl_api.wire.progress import Control, Progress
from lprl_fixtures.runs import run_config
from lprl_workload.launch import drive as module
from lprl_workload.launch.departure import Departure
from lprl_workload.metrics.configmaps import FileStore
from lprl_workload.metrics.progress import Reporter
from lprl_workload.process.blame import is_of_code
from lprl_workload.process.errors import RemoteError

MISSING = RemoteError("trainer: set_up: rank 1 on 10.0.0.7: AttributeError: 'dict' object has no attribute 'to_dict'", "program")


def driven(root: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> Exception:
    """What a drive raises whose groups cannot be made."""

    def groups(*given: Any) -> Any:
        raise error

    monkeypatch.setattr(module, "local_groups", groups)
    monkeypatch.setenv("LPRL_VOLUMES_ROOT", str(root))
    run = run_config(root)
    reporter = Reporter(FileStore(root / "told"), Progress(attempt=1, sequence=0, phase="starting", step=0, steps=2), 60.0, CONTROL)
    arguments = argparse.Namespace(attempt=1, in_process=True, recorded_step=0)
    try:
        with pytest.raises(Exception) as caught:
            module.drive(run, arguments, reporter, Departure(lambda saved, why: None))
    finally:
        reporter.close()
    return caught.value


CONTROL = Control(steps=2, stability=Stability())


def test_an_error_of_code_before_any_checkpoint_is_told_at_once_by_its_last_line(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = driven(inputs, MISSING, monkeypatch)
    assert isinstance(error, UserError) and error.message == f"set-up: {MISSING}" and error.remedy == module.NO_RESTART
    assert "\n" not in error.message


@pytest.mark.parametrize(
    "error", [RemoteError("trainer: set_up: rank 1: RuntimeError: [gloo] closed", "chance"), ConnectionResetError("gone")]
)
def test_an_error_that_may_be_chance_is_left_to_another_attempt(inputs: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    assert driven(inputs, error, monkeypatch) is error


def test_a_run_with_a_checkpoint_is_not_given_up_for_one_error(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "steps_of", lambda folder: [2])
    assert driven(inputs, MISSING, monkeypatch) is MISSING


@pytest.mark.parametrize(
    ("error", "of_code"),
    [
        (AttributeError("x"), True), (ImportError("x"), True), (ValueError("half a file"), False), (KeyError("x"), False), (MISSING, True),
        (RemoteError("trainer: set_up: rank 1: KeyError: 'x'", "program"), False), (RemoteError("x: AttributeError: y", "chance"), False),
    ],
)  # fmt: skip
def test_what_no_half_read_file_explains_is_of_code(error: Exception, of_code: bool) -> None:
    assert is_of_code(error) is of_code
