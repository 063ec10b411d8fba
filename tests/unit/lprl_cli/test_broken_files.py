"""Files that are not what they should be: one line that names the file, and a remedy; never `unexpected`."""

import errno
import json
import os
from pathlib import Path

import pytest

from lprl_cli import exits
from lprl_cli.commands import doctor
from lprl_cli.commands.run import finish
from lprl_cli.main import PATH_REMEDIES, main
from lprl_cli.runfolder import find

ROW = {"step": 1, "reward": 0.5, "k3": 0.001}


def run_of(folder: Path, metrics: str | bytes) -> str:
    folder.mkdir()
    (folder / "metrics.jsonl").write_bytes(metrics if isinstance(metrics, bytes) else metrics.encode())
    return str(folder)


@pytest.mark.parametrize("command", ["report", "status", "metrics"])
@pytest.mark.parametrize(
    ("line", "shown"),
    [
        pytest.param(b"xx", "no JSON object: xx", id="garbage"),
        pytest.param(b"[1]", "no JSON object: [1]", id="list"),
        pytest.param(b"\xff\xfe", "no JSON object", id="no-utf8"),
        pytest.param(b"[" * 20000, "no JSON object", id="deep"),
    ],
)
def test_a_broken_line_is_named(command: str, line: bytes, shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path / "m", json.dumps(ROW).encode() + b"\n" + line + b"\n" + json.dumps(ROW).encode() + b"\n")
    assert main([command, run]) == exits.USER_ERROR
    error = capsys.readouterr().err
    assert f"{run}/metrics.jsonl:2: {shown}" in error and "fix:" in error


@pytest.mark.parametrize("end", ['{"step": 2, "rew', '{"step": 2, "rew\n', ""], ids=["torn", "torn-with-newline", "whole"])
@pytest.mark.parametrize("command", ["report", "status", "metrics"])
def test_a_torn_last_line_is_left_out(command: str, end: str, tmp_path: Path) -> None:
    run = run_of(tmp_path / "m", f"{json.dumps(ROW)}\n{end}")
    assert main([command, run]) == exits.OK
    assert find(run).rows("metrics.jsonl") == [ROW]


def test_status_of_metrics_alone_is_their_last_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path / "m", f"{json.dumps(ROW)}\n")
    assert main(["status", run]) == exits.OK
    assert capsys.readouterr().out.splitlines()[1].split() == ["m", "-", "-", "-", "-", "1", "0.500", "-", "0.00100", "-", "-"]
    assert main(["status", run, "-o", "json"]) == exits.OK
    assert json.loads(capsys.readouterr().out) == {"metadata": {"name": "m"}, "metrics": ROW}


@pytest.mark.parametrize("command", ["report", "status", "logs", "suspend"])
@pytest.mark.parametrize("text", ['{"a": ', "[]", "{}", '{"spec": 3}'], ids=["truncated", "list", "empty", "no-spec"])
def test_a_broken_job_is_named(command: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.json").write_text(text)
    assert main([command, str(tmp_path)]) == exits.USER_ERROR
    error = capsys.readouterr().err
    assert f"{tmp_path}/job.json: " in error and "put back what it held" in error


def test_paths_of_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    lines = {
        f"{tmp_path}/nodir/x: No such file": ["init", "qwen3-4b-fp8", "--out", f"{tmp_path}/nodir/x"],
        f"{file}/x: Not a directory": ["init", "qwen3-4b-fp8", "--out", f"{file}/x"],
        f"{file}: Not a directory": ["demo", "--dir", str(file)],
        f"{file}/below: Not a directory": ["demo", "--dir", f"{file}/below"],
        f"{tmp_path}/m/out: Is a directory": ["report", run_of(tmp_path / "m", f"{json.dumps(ROW)}\n"), "--out", f"{tmp_path}/m/out"],
    }
    (tmp_path / "m" / "out").mkdir()
    for message, line in lines.items():
        assert main(line) == exits.USER_ERROR, line
        error = capsys.readouterr().err
        assert message in error and "fix:" in error, error


@pytest.mark.parametrize("number", sorted(PATH_REMEDIES), ids=lambda n: errno.errorcode[n])
def test_a_path_that_cannot_be_used(number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> None:
        raise OSError(number, os.strerror(number), "/some/path")

    monkeypatch.setattr(doctor, "checks", refused)
    monkeypatch.delenv("LPRL_DEBUG", raising=False)
    assert main(["doctor"]) == (exits.STORAGE_FULL if number == errno.ENOSPC else exits.USER_ERROR)
    assert f"error: /some/path: {os.strerror(number)}\n  fix: " in capsys.readouterr().err


def test_metadata_that_is_no_mapping(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("apiVersion: lprl.dev/v1alpha1\nkind: LowPrecisionRLJob\nmetadata: 5\n")
    assert main(["validate", str(file)]) == exits.USER_ERROR
    assert "got  5 (a number)" in capsys.readouterr().out
    assert main(["plan", str(file), "--name", "x"]) == exits.USER_ERROR
    assert f"{file}: no job named x" in capsys.readouterr().err


def test_an_inspection_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "i.json"
    file.write_text(json.dumps({"a": 1, "b": 2}))
    assert main(["render", "qwen3-4b-fp8", "--inspection", str(file)]) == exits.USER_ERROR
    error = capsys.readouterr().err
    assert f"{file}: no inspection: shape: Field required; " in error and "more" in error and "lprl inspect FOLDER" in error


NO_SHAPE = [["plan"], ["render"]]


@pytest.mark.parametrize("line", NO_SHAPE, ids=["plan", "render"])
def test_no_shape_names_the_file(line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "qwen3-4b-fp8"]) == exits.OK
    file = tmp_path / "job.yaml"
    file.write_text("\n".join(row for row in capsys.readouterr().out.splitlines() if "shape: qwen3" not in row))
    assert main([*line, str(file)]) == exits.USER_ERROR
    error = capsys.readouterr().err
    assert f"{file}:" in error and "spec.model.shape: got nothing" in error


@pytest.mark.parametrize("text", ["[1]", "{", "\udcff"], ids=["list", "truncated", "no-utf8"])
def test_a_config_that_is_none(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    assert main(["plan", "qwen3-4b-fp8", "--config", str(file)]) == exits.USER_ERROR
    assert str(file) in capsys.readouterr().err


IGNORED = [
    pytest.param(["plan", "qwen3-4b-fp8", "--name", "foo"], "--name foo", id="name-of-a-preset"),
    pytest.param(["report", "a", "b", "--out", "x.html"], "--out x.html", id="out-of-several"),
    pytest.param(["report", "a", "--compare", "c.html", "--out", "x.html"], "--out x.html", id="out-of-a-comparison"),
]


@pytest.mark.parametrize(("line", "named"), IGNORED)
def test_no_option_is_ignored(line: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line) == exits.USER_ERROR
    assert named in capsys.readouterr().err


@pytest.mark.parametrize("value", ["-5", "0", "nan", "inf", "1e9", "x"])
@pytest.mark.parametrize("line", [["plan", "qwen3-4b-fp8", "--host-memory"], ["logs", "x", "--attempt"]], ids=["plan", "logs"])
def test_numbers_of_options(line: list[str], value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*line, value] if not value.startswith("-") else [*line[:-1], f"{line[-1]}={value}"])
    assert end.value.code == exits.USAGE
    assert f"got {value!r}; a whole number of at least 1" in capsys.readouterr().err


def test_a_failed_run_says_why_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    condition = {"type": "Failed", "status": "True", "reason": "ShapeMismatch", "message": "spec.x: got 1; need 2"}
    volumes = {"v": {"persistentVolumeClaim": "c"}}
    status = {"phase": "Failed", "conditions": [condition]}
    document = {"metadata": {"name": "j"}, "spec": {"checkpoint": {"volume": "v"}, "volumes": volumes}, "status": status}
    (tmp_path / "job.json").write_text(json.dumps(document))
    assert finish(find(str(tmp_path)), report=False) == exits.JOB_FAILED
    both = capsys.readouterr()
    assert "error" not in both.out
    assert "error: ShapeMismatch: spec.x: got 1; need 2\n  fix: correct the fields named" in both.err
