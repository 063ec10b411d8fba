"""Subcommands in this process: exit codes, termination messages, no traceback for wrong input."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from lprl_api.errors import StorageFullError, UserError
from lprl_api.model.formats import Fp8Block, Int4Group
from lprl_api.model.hf_quantization import parse_quantization_config
from lprl_api.model.model_shape import Inspection
from lprl_api.names import TERMINATION_MESSAGE_BYTES, ExitCode, Reason
from lprl_api.spec.sources import ModelSource
from lprl_api.wire.progress import Termination
from lprl_api.wire.runconfig import InspectConfig
from lprl_workload.__main__ import COMMANDS, main
from lprl_workload.convert.console import ProgressLine, Tick, render
from lprl_workload.convert.export import convert_folder
from lprl_workload.convert.manifest import read_manifest
from lprl_workload.process import termination
from lprl_workload.process.errors import FencedError
from lprl_workload.process.termination import USAGE, ending_of, run_guarded, write_message, write_termination


@pytest.fixture(autouse=True)
def by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pod around these tests, even where there is one."""
    monkeypatch.delenv("LPRL_TERMINATION_LOG", raising=False)
    monkeypatch.setattr(termination, "DEFAULT_LOG", tmp_path / "no-termination-log")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LPRL_TERMINATION_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("LPRL_VOLUMES_ROOT", str(tmp_path))
    return tmp_path / "log"


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"train"}))
def test_help_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text and f"python -m lprl_workload {command}" in text


def test_usage_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)
    assert main(["covert"]) == USAGE == main([])
    err = capsys.readouterr().err
    assert "error: unknown command 'covert'\n  fix: it is one of inspect, convert" in err


def test_the_pods_way_through_a_conversion(
    log: Path, tmp_path: Path, make_model: Any, config_for: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """inspect -> convert (three indexes for two shards) -> finalise -> convert again, which reuses."""
    make_model("models/source")
    inspect = tmp_path / "inspect.json"
    inspect.write_text(json.dumps(InspectConfig(source=ModelSource(volume="models", path="source")).document()))
    assert main(["inspect", "--config", str(inspect)]) == 0
    found = Inspection.model_validate_json(log.read_text())
    config = config_for(tmp_path / "models" / "source", Int4Group(group_size=32), workers=3)
    assert found.fingerprint == config.fingerprint
    file = tmp_path / "convert.json"
    file.write_text(json.dumps(config.document()))
    for index in range(3):
        assert main(["convert", "--config", str(file), "--index", str(index)]) == 0
    assert Termination.model_validate_json(log.read_text()).message.startswith("0 shards")
    assert main(["finalise", "--config", str(file)]) == 0
    assert Termination.model_validate_json(log.read_text()).reason == Reason.CONVERTED
    assert read_manifest(tmp_path / "models" / "target") is not None
    assert main(["convert", "--config", str(file), "--index", "0"]) == 0
    assert Termination.model_validate_json(log.read_text()).reason == Reason.CONVERSION_REUSED
    capsys.readouterr()
    assert main(["convert", "--config", str(file), "--index", "-1"]) == ExitCode.USER_ERROR
    err = capsys.readouterr().err
    assert "needs a number from 0 to 2" in err and "Traceback" not in err


def test_one_shot_verify_and_export(log: Path, tmp_path: Path, make_model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_model("source")
    out = tmp_path / "exports"
    options = ["--formats", "bf16", "fp8", "int4", "--group-size", "32"]
    assert main(["export", str(source), "--out", str(out), *options]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["bf16", "fp8", "int4"]
    assert main(["verify", str(out / "fp8"), "--source", str(source), "--max-error", "0.05"]) == 0
    assert "bit for bit the quantizer's" in capsys.readouterr().out
    assert main(["verify", str(out / "int4"), "--source", str(source), "--max-error", "0.05", "--output", "json"]) == ExitCode.USER_ERROR
    assert Termination.model_validate_json(log.read_text()).reason == Reason.USER_ERROR


def test_export_finds_the_newest_complete_step(tmp_path: Path, make_model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for step, complete in (("step-000001", True), ("step-000002", True), ("step-000003", False)):
        make_model(f"run/{step}/model", seed=int(step[-1]))
        if complete:
            (tmp_path / "run" / step / "manifest.json").write_text("{}")
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 0
    assert main(["verify", str(tmp_path / "out" / "bf16"), "--source", str(tmp_path / "run" / "step-000002" / "model")]) == 0
    assert main(["export", str(tmp_path / "run" / "step-000003"), "--out", str(tmp_path / "out")]) == ExitCode.USER_ERROR
    assert "an unfinished checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        pytest.param(UserError("x: wrong", "do y"), ExitCode.USER_ERROR, Reason.USER_ERROR, id="user"),
        pytest.param(StorageFullError("x"), ExitCode.STORAGE_FULL, Reason.STORAGE_FULL, id="full"),
        pytest.param(OSError(errno.ENOSPC, "No space left", "/v"), ExitCode.STORAGE_FULL, Reason.STORAGE_FULL, id="enospc"),
        pytest.param(OSError(errno.EDQUOT, "Quota", "/v"), ExitCode.STORAGE_FULL, Reason.STORAGE_FULL, id="quota"),
        pytest.param(OSError(errno.EIO, "I/O error", "/v"), ExitCode.CRASH, Reason.CONVERSION_FAILED, id="io"),
        pytest.param(PermissionError(errno.EACCES, "Permission denied", "/v"), ExitCode.USER_ERROR, Reason.USER_ERROR, id="permission"),
        pytest.param(PermissionError(errno.EACCES, "Permission denied"), ExitCode.CRASH, Reason.CONVERSION_FAILED, id="nameless"),
        pytest.param(OSError(errno.EROFS, "Read-only file system", "/v"), ExitCode.USER_ERROR, Reason.USER_ERROR, id="read-only"),
        pytest.param(NotADirectoryError(errno.ENOTDIR, "Not a directory", b"/v"), ExitCode.USER_ERROR, Reason.USER_ERROR, id="file"),
        pytest.param(IsADirectoryError(errno.EISDIR, "Is a directory", "/v"), ExitCode.USER_ERROR, Reason.USER_ERROR, id="folder"),
        pytest.param(
            FileNotFoundError(errno.ENOENT, "No such file", "/v"), ExitCode.CRASH, Reason.CONVERSION_FAILED, id="missing-in-a-pod"
        ),
        pytest.param(FencedError("newer", 2), ExitCode.FENCED, Reason.CONVERSION_FAILED, id="fenced"),
        pytest.param(MemoryError(), ExitCode.CRASH, Reason.OUT_OF_MEMORY, id="memory"),
        pytest.param(KeyError("k"), ExitCode.CRASH, Reason.CONVERSION_FAILED, id="bug"),
    ],
)
def test_endings(log: Path, capsys: pytest.CaptureFixture[str], error: Exception, code: int, reason: str) -> None:
    def fail() -> int:
        raise error

    assert ending_of(error, Reason.CONVERSION_FAILED).code == code
    assert run_guarded(fail, Reason.CONVERSION_FAILED) == code
    assert Termination.model_validate_json(log.read_text()).reason == reason
    err = capsys.readouterr().err
    assert ("Traceback" in err) == (code == ExitCode.CRASH)
    assert "error: " in err


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "No such file", "/v"), FileExistsError(errno.EEXIST, "Exists", "/v")])
def test_a_file_named_by_hand_is_the_users(log: Path, capsys: pytest.CaptureFixture[str], error: OSError) -> None:
    def fail() -> int:
        raise error

    assert run_guarded(fail, Reason.CONVERSION_FAILED, by_hand=True) == ExitCode.USER_ERROR
    err = capsys.readouterr().err
    assert err.startswith(f"error: /v: {error.strerror}\n  fix: ") and "Traceback" not in err


def test_debugging_keeps_every_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise PermissionError(errno.EACCES, "Permission denied", "/v")

    monkeypatch.setenv("LPRL_DEBUG", "1")
    assert run_guarded(fail, Reason.CONVERSION_FAILED) == ExitCode.USER_ERROR
    assert "Traceback" in capsys.readouterr().err


CONVERT = ["convert-all", "SOURCE", "TARGET"]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        pytest.param([*CONVERT, "--to", "int4", "--group-size", "48"], "invalid choice: 48", id="group-size"),
        pytest.param([*CONVERT, "--to", "fp9"], "invalid choice: 'fp9'", id="format"),
        pytest.param([*CONVERT, "--to", "int4", "--max-error", "nan"], "got 'nan'; needs a number above 0", id="nan"),
        pytest.param([*CONVERT, "--to", "int4", "--max-error", "inf"], "got 'inf'; needs a number above 0", id="inf"),
        pytest.param(["verify", "TARGET", "--source", "SOURCE", "--max-error", "-1"], "got '-1'; needs a number above 0", id="negative"),
        pytest.param(["verify", "SOURCE", "--max-error", "0.1"], "--max-error: there is nothing to compare with", id="no-source"),
        pytest.param([*CONVERT, "--to", "fp8", "--workers", "0"], "got '0'; needs a whole number of at least 1", id="workers"),
        pytest.param([*CONVERT, "--to", "fp8", "--group-size", "64"], "--group-size: fp8-block has no such option", id="fp8-groups"),
        pytest.param([*CONVERT, "--to", "fp8", "--scope", "all-linear"], "--scope: fp8-block has no such option", id="fp8-scope"),
        pytest.param([*CONVERT, "--to", "fp8-channel", "--scale-format", "ue8m0"], "--scale-format: fp8-channel", id="channel-scales"),
        pytest.param([*CONVERT, "--to", "bf16", "--exclude", "*"], "--exclude: bf16 has no such option", id="bf16"),
        pytest.param(["export", "SOURCE", "--out", "T", "--formats", "bf16", "fp8", "--scope", "all-linear"], "--scope: ", id="export"),
        pytest.param(["finalise"], "required: --config", id="pod"),
        pytest.param(["train"], "required: --config", id="train"),
    ],
)
def test_wrong_command_lines(
    arguments: list[str], match: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = [str(tmp_path / a) if a in ("SOURCE", "TARGET", "T") else a for a in arguments]
    assert main(line) == USAGE
    err = capsys.readouterr().err
    assert match in err and "  fix: " in err and list(tmp_path.iterdir()) == []
    # In a job's process the code is one that the Job's failure policy does not retry.
    monkeypatch.setenv("LPRL_TERMINATION_LOG", str(tmp_path / "log"))
    assert main(line) == ExitCode.USER_ERROR
    monkeypatch.setenv("LPRL_CALLED_AS", "lprl convert")
    assert main(line) == USAGE


def test_errors_and_help_say_how_the_command_was_called(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPRL_CALLED_AS", "kubectl lprl convert")
    assert main(["convert-all"]) == USAGE
    assert "error: kubectl lprl convert: the following" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["convert-all", "--help"])
    text = capsys.readouterr().out
    assert "usage: kubectl lprl convert [-h]" in text and "\n  kubectl lprl convert models/" in text and "lprl_workload" not in text


@pytest.mark.parametrize(
    ("exclude", "match"),
    [
        pytest.param("nosuchmodule*", "--exclude nosuchmodule*: matches no module of", id="no-module"),
        pytest.param("*", "selects no tensor of the model", id="everything"),
        pytest.param("*.q_proj", "are one kernel in the engine", id="half-a-kernel"),
    ],
)
def test_exclusions_are_checked_before_the_start(
    exclude: str, match: str, make_model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_model()
    assert main(["convert-all", str(source), str(tmp_path / "t"), "--to", "fp8", "--exclude", exclude]) == ExitCode.USER_ERROR
    err = capsys.readouterr().err
    assert match in err and "  fix: " in err
    assert [p.name for p in tmp_path.iterdir()] == [source.name]


def test_a_manifests_exclusions_may_match_nothing(make_model: Any, tmp_path: Path) -> None:
    convert_folder(make_model(), tmp_path / "t", Fp8Block(exclude_modules=("*.of_another_model",)), 1)


def test_long_messages_are_cut_to_valid_json(log: Path) -> None:
    write_termination(Reason.USER_ERROR, "é" * 10_000)
    raw = log.read_bytes()
    assert len(raw) <= TERMINATION_MESSAGE_BYTES and Termination.model_validate_json(raw).message.startswith("é")
    with pytest.raises(ValueError, match="at most 4096"):
        write_message("x" * 5000)


def test_progress_line() -> None:
    tick = Tick("converting", 3_000_000_000, 4_000_000_000, 1_000_000_000, 4.0)
    assert render(tick) == "converting:  75.0 %, 3.00 GB of 4.00 GB, 500.00 MB/s, 0:02 left"
    assert render(Tick("x", 0, 0, 0, 0.0)) == "x: 100.0 %, 0 B of 0 B, 0 B/s"


def test_json_progress_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    line = ProgressLine(as_json=True)
    line.show(Tick("x", 1, 2, 0, 1.0))
    line.show(Tick("x", 2, 2, 0, 1.0))
    assert [json.loads(text)["done"] for text in capsys.readouterr().out.splitlines()] == [1, 2]


def test_already_converted_is_a_user_error(tmp_path: Path, make_model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    convert_folder(make_model(), tmp_path / "fp8", Fp8Block(), 1)
    assert main(["convert-all", str(tmp_path / "fp8"), str(tmp_path / "again"), "--to", "fp8"]) == ExitCode.USER_ERROR
    assert "is fp8-block already" in capsys.readouterr().err and not (tmp_path / "again.partial").exists()


@pytest.mark.parametrize("to", ["fp8-block", "fp8-channel", "fp8-tensor"])
def test_a_folder_says_that_its_engine_leaves_activations_alone(to: str, tmp_path: Path, make_model: Any) -> None:
    source = make_model()
    assert main(["convert-all", str(source), str(tmp_path / "out"), "--to", to, "--activations", "none"]) == 0
    fmt = parse_quantization_config(json.loads((tmp_path / "out" / "config.json").read_text()))
    assert fmt.kind == to and getattr(fmt, "activations", "") == "none"


def test_activations_belong_to_fp8(tmp_path: Path, make_model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert-all", str(make_model()), str(tmp_path / "out"), "--to", "int4-group", "--activations", "none"]) == USAGE
    assert "--activations: int4-group has no such option" in capsys.readouterr().err
