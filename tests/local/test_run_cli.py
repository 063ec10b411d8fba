"""Commands that run the workload as a process: inspect, convert, verify, export."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lprl_cli import exits
from lprl_cli.main import PASSED_THROUGH

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def lprl(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "lprl_cli.main", *arguments], capture_output=True, text=True, timeout=1200)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "toy"
    subprocess.run([sys.executable, "-m", "lprl_fixtures", "--model", str(folder), "--size", "tiny", "--shards", "2"], check=True)
    return folder


@pytest.mark.parametrize("command", PASSED_THROUGH)
def test_help_teaches_with_the_commands_own_name(command: str) -> None:
    done = lprl(command, "--help")
    assert done.returncode == exits.OK, done.stderr
    assert f"lprl {command}" in done.stdout.split("examples:")[1]
    assert "lprl_workload" not in done.stdout


def test_inspect_convert_verify(model: Path, tmp_path: Path) -> None:
    inspected = lprl("inspect", str(model), "--output", "json")
    assert inspected.returncode == exits.OK, inspected.stderr
    assert json.loads(inspected.stdout)["shards"] == 2
    target = tmp_path / "int4"
    done = lprl("convert", str(model), str(target), "--to", "int4", "--group-size", "32", "--workers", "2")
    assert done.returncode == exits.OK, done.stderr
    assert (target / "manifest.json").exists()
    again = lprl("inspect", str(target), "--output", "json")
    assert again.returncode == exits.OK, again.stderr
    # The note on foreign INT4 once stood behind the document on stdout, and reading it failed.
    assert json.loads(again.stdout)["quantization"] == {
        "format": "int4-group",
        "blockSize": None,
        "groupSize": 32,
        "symmetric": True,
        "scope": "all-linear",
    }
    assert "re-quantising" in again.stderr
    verified = lprl("verify", str(target), "--source", str(model))
    assert verified.returncode == exits.OK, verified.stderr


def test_render_of_an_inspected_model_is_what_the_operator_makes(model: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "job.yaml"
    assert lprl("init", "qwen3-4b-fp8", "--out", str(manifest)).returncode == exits.OK
    manifest.write_text(manifest.read_text().replace("    shape: qwen3-4b\n", ""))
    assert lprl("render", str(manifest)).returncode == exits.USER_ERROR
    done = lprl("render", str(EXAMPLES / "10-qwen3-bf16-bf16.yaml"), "--model", str(model), "--output", "json")
    assert done.returncode == exits.OK, done.stderr
    kinds = [d["kind"] for d in json.loads(done.stdout)["items"]]
    assert kinds[:2] == ["Job", "NetworkPolicy"] and kinds[-1] == "RayCluster"


def test_errors_of_the_workload_keep_their_exit_code(tmp_path: Path) -> None:
    done = lprl("verify", str(tmp_path / "nothing"))
    assert done.returncode == exits.USER_ERROR
    assert "Traceback" not in done.stderr
    wrong = lprl("convert", "a", "b", "--to", "int4", "--group-size", "48")
    assert wrong.returncode == exits.USAGE
    assert wrong.stderr.startswith("error: lprl convert: argument --group-size") and "  fix: see lprl convert --help" in wrong.stderr


def test_inspect_has_one_error_and_the_workloads_exit_code(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    done = lprl("inspect", str(broken))
    assert done.returncode == exits.USER_ERROR
    assert done.stderr.startswith(f"error: {broken}/config.json: not valid JSON") and len(done.stderr.splitlines()) == 2
