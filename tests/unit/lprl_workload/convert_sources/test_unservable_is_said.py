"""A conversion that SGLang cannot serve says so before it begins, and in its report; it is made all the same."""

import json
from pathlib import Path

import pytest

from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_workload.convert.cli import convert_all_command
from lprl_workload.launch.export import export_command

SAID = "warning: SGLang cannot serve fp8-block: model.layers.0.mlp.gate_up_proj: gate_proj has 192 output channels, no multiple of 128\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "m"
    generate_model(folder, ModelOptions(architecture="qwen3"))
    return folder


def test_convert_warns_on_stderr_and_in_the_report(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "fp8"
    assert convert_all_command([str(model), str(target), "--to", "fp8-block"]) == 0
    out, err = capfd.readouterr()
    assert (
        SAID in err
        and "what fits: fp8-channel with FP8 activations, which SGLang serves in every shape; or the same without" in err
        and SAID not in out
    )
    found = json.loads((target / "conversion_report.json").read_text())["warnings"]
    assert SAID in [f"warning: {text}\n" for text in found]
    assert SAID in (target / "conversion_report.txt").read_text()


def test_export_warns_and_a_format_that_serves_every_shape_does_not(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert export_command([str(model), "--out", str(tmp_path), "--formats", "fp8-channel"]) == 0
    assert "warning" not in capfd.readouterr().err
    assert json.loads((tmp_path / "fp8-channel" / "conversion_report.json").read_text())["warnings"] == []
    assert export_command([str(model), "--out", str(tmp_path), "--formats", "fp8"]) == 0
    assert SAID in capfd.readouterr().err
