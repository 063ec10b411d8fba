"""Commands: exit codes, one line of cause and one of remedy, no tracebacks, cheap start-up."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lprl_cli import exits
from lprl_cli.main import COMMANDS, PASSED_THROUGH, main

VALID: dict[str, Any] = {
    "apiVersion": "lprl.dev/v1alpha1",
    "kind": "LowPrecisionRLJob",
    "metadata": {"name": "toy"},
    "spec": {
        "model": {"source": {"volume": "models", "path": "toy"}},
        "conversion": {"volume": "models"},
        "data": {"prompts": {"volume": "models", "path": "train.jsonl"}},
        "algorithm": {"steps": 2},
        "checkpoint": {"volume": "models"},
        "volumes": {"models": {"persistentVolumeClaim": "models"}},
    },
}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(VALID))
    return path


def changed(tmp_path: Path, text: str, replaced: str, by: str) -> str:
    path = tmp_path / "changed.yaml"
    assert replaced in text
    path.write_text(text.replace(replaced, by))
    return str(path)


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - set(PASSED_THROUGH)))
def test_help_of_every_command_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"lprl {command}" in capsys.readouterr().out.split("examples:")[1]


def test_no_command_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == exits.USAGE
    assert "exit codes:" in capsys.readouterr().out


def test_valid(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(manifest)]) == exits.OK
    assert "toy is valid" in capsys.readouterr().out


def test_every_error_at_once_with_its_line(tmp_path: Path, manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = manifest.read_text()
    file = changed(tmp_path, text, "steps: 2", "steps: 0\n    samplesPerPromt: 4")
    assert main(["validate", file]) == exits.USER_ERROR
    out = capsys.readouterr().out
    lines = Path(file).read_text().splitlines()
    assert f"changed.yaml:{lines.index('    steps: 0') + 1}: spec.algorithm.steps" in out
    assert "did you mean samplesPerPrompt?" in out


def test_rules_are_checked_too(tmp_path: Path, manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = changed(tmp_path, manifest.read_text(), "checkpoint:\n    volume: models", "checkpoint:\n    volume: elsewhere")
    assert main(["validate", file, "--output", "json"]) == exits.USER_ERROR
    rows = json.loads(capsys.readouterr().out)
    assert [e["path"] for e in rows[0]["errors"]] == ["spec.checkpoint.volume"]


ERRORS = [
    pytest.param(["validate", "/no/such.yaml"], id="validate-missing-file"),
    pytest.param(["plan", "no-such-preset"], id="plan-unknown-preset"),
    pytest.param(["plan"], id="plan-nothing"),
    pytest.param(["init", "no-such-preset"], id="init-unknown-preset"),
    pytest.param(["report", "/no/run"], id="report-no-run"),
    pytest.param(["logs", "/no/run"], id="logs-no-run"),
    pytest.param(["suspend", "/no/run"], id="suspend-no-run"),
    pytest.param(["inspect", "/no/model"], id="inspect-no-model"),
    pytest.param(["run", "/no/such.yaml"], id="run-missing-file"),
]


@pytest.mark.parametrize("line", ERRORS)
def test_user_errors_are_short(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line) == exits.USER_ERROR
    both = capsys.readouterr()
    text = both.err + both.out
    assert text.strip() and "Traceback" not in text and len(text.splitlines()) <= 3


def test_run_says_where_the_model_should_be(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["run", str(manifest), "--state-dir", str(tmp_path / "s"), "--volumes", str(tmp_path / "v")])
    assert code == exits.USER_ERROR
    assert f"{tmp_path}/v/models/toy" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_unexpected_errors_hide_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import lprl_cli.commands.doctor as doctor

    def broken() -> list[tuple[bool, str, str]]:
        raise RuntimeError("boom")

    monkeypatch.setattr(doctor, "checks", broken)
    monkeypatch.delenv("LPRL_DEBUG", raising=False)
    assert main(["doctor"]) == exits.UNEXPECTED
    assert "unexpected RuntimeError: boom" in capsys.readouterr().err


def test_init_does_not_overwrite(tmp_path: Path) -> None:
    out = tmp_path / "job.yaml"
    assert main(["init", "qwen3-4b-fp8", "--out", str(out)]) == exits.OK
    before = out.read_text()
    assert main(["init", "qwen3-4b-fp8", "--out", str(out)]) == exits.USER_ERROR
    assert out.read_text() == before
    assert main(["validate", str(out)]) == exits.OK


def test_init_names_queues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "job.yaml"
    assert main(["init", "qwen3-4b-fp8", "--queue", "blue", "--preparing-queue", "small", "--out", str(out)]) == exits.OK
    found = yaml.safe_load(out.read_text())
    assert found["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "blue"} and found["spec"]["conversion"]["queueName"] == "small"
    assert main(["validate", str(out)]) == exits.OK
    for line in (["--queue", "Blue Team"], ["--preparing-queue", "small"], ["--queue", "blue", "--preparing-queue", "Not So"]):
        assert main(["init", "qwen3-4b-fp8", *line]) == exits.USER_ERROR, line
    assert "queueName" in capsys.readouterr().err


LOADED = """
import sys
from lprl_cli.main import main
before = {name.partition(".")[0] for name in sys.modules}
try:
    main(sys.argv[1:])
except SystemExit:
    pass
found = {name.partition(".")[0] for name in sys.modules} - before - sys.stdlib_module_names
print(*sorted(name for name in found if not name.startswith("_") and name != "cython_runtime"), file=sys.stderr)
"""
SPEC = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}


@pytest.mark.parametrize(("line", "may_load"), [("--help", set[str]()), ("validate JOB", {*SPEC, "yaml"})], ids=["help", "validate"])
def test_start_up_stays_cheap(line: str, may_load: set[str], manifest: Path) -> None:
    """What is loaded decides the time, which `benchmarks/start.py` measures: a busy machine makes it any number here."""
    arguments = [str(manifest) if word == "JOB" else word for word in line.split()]
    done = subprocess.run([sys.executable, "-c", LOADED, *arguments], check=True, capture_output=True, text=True)
    assert set(done.stderr.split()) <= may_load


def test_the_command_line_imports_no_heavy_library() -> None:
    code = (
        "import sys, lprl_cli.main as m; m.build_parser('run');"
        "import lprl_cli.commands.run, lprl_cli.commands.validate;"
        "print([x for x in ('torch', 'ray', 'rich', 'transformers', 'kopf', 'lprl_workload') if x in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("words", ["render JOB --model MODEL", "inspect MODEL", "convert MODEL OUT --to fp8", "verify MODEL"])
def test_without_torch_a_command_that_reads_models_says_what_to_install(words: str, manifest: Path, tmp_path: Path) -> None:
    """As where only the documented `.[operator]` is installed."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    named = {"JOB": str(manifest), "MODEL": str(model), "OUT": str(tmp_path / "out")}
    line = [named.get(word, word) for word in words.split()]
    code = "import sys; sys.modules['torch'] = None; from lprl_cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True, check=False)
    assert done.returncode == exits.USER_ERROR, done.stderr
    assert "torch is not installed" in done.stderr and "pip install '.[cpu]'" in done.stderr
    assert "Traceback" not in done.stderr
