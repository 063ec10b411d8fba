"""What the doctor says of an engine and the weights it is to serve."""

from pathlib import Path

import pytest

from lprl_api.errors import UserError
from lprl_api.names import ExitCode
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_workload.launch.doctor import doctor_command


def test_the_torch_engine_takes_a_folder_twice_and_computes_what_we_compute(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate_model(tmp_path, ModelOptions("qwen3", "tiny"))
    code = doctor_command(["--engine", "torch", "--model", str(tmp_path), "--device", "cpu"])
    rows = [row for row in capsys.readouterr().out.splitlines() if " engine " in row]
    assert code == ExitCode.OK and len(rows) == 2
    assert "second load" in rows[0] and "equal to the first over 5 pushes" in rows[0]
    assert "log-probs" in rows[1] and "0 nats a token from our own arithmetic" in rows[1]


def test_an_engine_without_a_model_is_a_user_error() -> None:
    with pytest.raises(UserError, match="belong together"):
        doctor_command(["--engine", "torch"])
