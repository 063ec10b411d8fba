"""The doctor on a real server."""

from pathlib import Path

import pytest
from tests.backends.weight_site import Model

from lprl_api.names import ExitCode
from lprl_workload.launch.doctor import doctor_command


def test_the_doctor_says_that_sglang_takes_a_folder_twice_and_computes_what_we_compute(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config").mkdir()
    model = Model(tmp_path / "config", "qwen3", "fp8")
    folder = model.write(tmp_path / "served", model.tensors(1))
    code = doctor_command(["--engine", "sglang", "--model", str(folder), "--device", "cpu"])
    rows = [row for row in capsys.readouterr().out.splitlines() if " engine " in row]
    assert code == ExitCode.OK, rows
    assert "sglang second load" in rows[0] and "equal to the first over 5 pushes" in rows[0]
    assert "sglang log-probs" in rows[1] and "nats a token from our own arithmetic" in rows[1]
