"""Where a conversion may write: refusals name the user's own paths, and come before anything is written."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from lprl_api.errors import UserError
from lprl_api.model.formats import Fp8Block
from lprl_api.names import ExitCode
from lprl_workload.__main__ import main
from lprl_workload.convert.cache import claim, find_conversion, partial_of
from lprl_workload.convert.export import convert_folder, export_checkpoint
from lprl_workload.convert.manifest import read_manifest
from lprl_workload.convert.places import check_places


def tree(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


@pytest.mark.parametrize(
    ("source", "target", "match"),
    [
        pytest.param("m", "m", "is the source itself", id="same"),
        pytest.param("m", "link", "is the source itself", id="same-through-a-link"),
        pytest.param("m", "m/sub/x", "lies inside the source", id="inside"),
        pytest.param("m", "link/x", "lies inside the source", id="inside-through-a-link"),
        pytest.param("m/deep", "m", "holds the source", id="around"),
        pytest.param("x.partial", "x", "is the source itself", id="work-folder"),
        pytest.param("m", "file", "is no folder", id="a-file"),
        pytest.param("m", "file/x", "is no folder", id="below-a-file"),
        pytest.param("m", "/proc/x", "cannot be written", id="nowhere"),
    ],
)
def test_refused_places(tmp_path: Path, source: str, target: str, match: str) -> None:
    for folder in ("m/deep", "x.partial"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "m")
    before = tree(tmp_path)
    with pytest.raises(UserError, match=match) as refused:
        check_places(tmp_path / source, tmp_path / target)
    assert refused.value.remedy and tree(tmp_path) == before
    check_places(tmp_path / "m", tmp_path / "new" / "deep")
    assert tree(tmp_path) == before


def test_a_model_is_never_called_removable(make_model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, other = make_model("source"), make_model("other", seed=1)
    before = tree(tmp_path)
    for target in (source, source / "sub", other):
        assert main(["convert-all", str(source), str(target), "--to", "fp8"]) == ExitCode.USER_ERROR
        err = capsys.readouterr().err
        assert "fix: choose" in err and "remove" not in err
    assert tree(tmp_path) == before
    with pytest.raises(UserError, match="without a valid") as refused:
        find_conversion(other, "0" * 64)
    assert "remove" not in refused.value.remedy


def test_messages_name_the_users_own_paths(make_model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The workers once ran under a temporary folder of links, and spoke of files in it."""
    source, target = make_model(), tmp_path / "target"
    claim(partial_of(target), "1" * 64)
    assert main(["convert-all", str(source), str(target), "--to", "fp8"]) == ExitCode.USER_ERROR
    err = capsys.readouterr().err
    assert f"error: {target}.partial: unfinished work" in err and f"fix: remove {target}.partial" in err
    convert_folder(source, tmp_path / "done", Fp8Block(), 1)
    assert main(["convert-all", str(source), str(tmp_path / "done"), "--to", "fp8-channel"]) == ExitCode.USER_ERROR
    assert f"error: {tmp_path / 'done'}: holds conversion" in capsys.readouterr().err


def test_a_worker_takes_plain_folders(make_model: Any, tmp_path: Path, config_for: Any, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = make_model(), tmp_path / "deep" / "target"
    file = tmp_path / "convert.json"
    file.write_text(json.dumps(config_for(source, Fp8Block()).document()))
    worker = ["convert", "--config", str(file), "--index", "0", "--folders", str(source), str(target)]
    assert main(worker) == 0 and len(list(partial_of(target).glob("*.safetensors"))) == 2
    (source / "model-00001-of-00002.safetensors").unlink()
    assert main(worker) == ExitCode.USER_ERROR
    assert f"error: {source}/model-00001" in capsys.readouterr().err


def test_exports_spare_what_is_not_theirs(make_model: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    model = make_model("run/step-000001/model")
    (run / "step-000001" / "manifest.json").write_text("{}")
    wanted = [("fp8", Fp8Block())]
    for out in (run, run / "step-000001", model, model / "x"):
        before = tree(tmp_path)
        with pytest.raises(UserError, match=r"is the checkpoint itself|lies inside the source"):
            export_checkpoint(run, out, wanted, 1)
        assert tree(tmp_path) == before
    (run / "export" / "fp8").mkdir(parents=True)
    (run / "export" / "fp8" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="no conversion made it"):
        export_checkpoint(run, run / "export", wanted, 1)
    (run / "export" / "fp8" / "notes.txt").unlink()
    assert export_checkpoint(run, run / "export", wanted, 1) == {"fp8": run / "export" / "fp8"}
    assert read_manifest(run / "export" / "fp8") is not None
    assert not list((run / "export").glob(".*"))


def test_a_full_volume_is_no_wrong_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OSError, match="No space left"):
        check_places(tmp_path / "m", tmp_path / "t")
