"""The model of a checkpoint that holds the trainer's state alone, put together afterwards: tensor for tensor what a trainer exports."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contract import trainer_bench
from tests.contract.trainer_bench import FORMATS, batch, make, save, step

from lprl_api.errors import UserError
from lprl_api.names import ExitCode
from lprl_workload.__main__ import main
from lprl_workload.checkpoint.hf_folder import write_trained
from lprl_workload.checkpoint.store import CheckpointStore
from lprl_workload.convert.manifest import read_manifest
from lprl_workload.folder.config import read_shape
from lprl_workload.hf.folder import read_folder
from lprl_workload.train import saved
from lprl_workload.train.state import take_snapshot, write_snapshot

folders = trainer_bench.folders


def checkpoint(actor: Any, run: Path, source: Path, ranks: int = 1, attempt: int = 1) -> Path:
    """What a run of `ranks` trainer ranks leaves at step 20."""
    store = CheckpointStore(run, attempt, 3)
    store.take_over()
    (folder := store.begin(20) / "trainer").mkdir()
    masters = actor.masters
    records = [r for rank in range(ranks) for r in write_snapshot(folder, take_snapshot(masters, rank, ranks, 1))]
    store.publish(20, [record.below("trainer") for record in records], str(source), read_shape(source))
    return store.folder(20)


@pytest.fixture
def run(folders: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, dict[str, torch.Tensor]]:
    """A run folder, and every tensor that its trainer exports."""
    source = folders[request.param]
    actor = make(source, FORMATS["int4-qat"])
    step(actor, batch(2))
    (tmp_path / "want").mkdir()
    write_trained(tmp_path / "want", actor.source(), actor.peers(), source, read_shape(source))
    checkpoint(actor, tmp_path / "run", source, ranks=3)
    return tmp_path / "run", dict(read_folder(tmp_path / "want"))


@pytest.mark.parametrize("run", trainer_bench.ARCHITECTURES, indirect=True)
def test_it_is_what_the_trainer_exports(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved, "READ_BYTES", 1)  # row by row
    assert main(["export", str(run[0]), "--out", str(tmp_path / "out")]) == ExitCode.OK
    found = dict(read_folder(tmp_path / "out" / "bf16"))
    assert found.keys() == run[1].keys()
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in run[1].items())
    assert read_manifest(tmp_path / "out" / "bf16") is not None
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["bf16"], "what was made on the way is gone"


@pytest.mark.parametrize("run", ["qwen3"], indirect=True)
def test_a_model_that_moved_is_named(run: Any, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = run[0] / "step-000020" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"source": "/volumes/models/gone"}))
    words = ["export", str(run[0] / "step-000020"), "--out", str(tmp_path / "out")]
    assert main(words) == ExitCode.USER_ERROR
    assert "the model it was trained from is not in /volumes/models/gone" in capsys.readouterr().err
    assert not (tmp_path / "out" / "bf16").exists()
    assert main([*words, "--model", str(folders["qwen3"])]) == ExitCode.OK


@pytest.mark.parametrize("run", ["qwen3"], indirect=True)
def test_damage_is_found_by_export_and_by_verify(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(run[0])]) == ExitCode.OK
    assert "step-000020  intact: 6 files" in capsys.readouterr().out
    file = run[0] / "step-000020" / "trainer" / "trainer-00001-of-00003.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-3] ^= 1
    file.write_bytes(raw)
    assert main(["verify", str(run[0] / "step-000020"), "--output", "json"]) == ExitCode.USER_ERROR
    told = capsys.readouterr()
    assert json.loads(told.out)[0]["intact"] is False and "trainer-00001-of-00003.safetensors: content" in told.err
    assert main(["export", str(run[0]), "--out", str(tmp_path / "out")]) == ExitCode.USER_ERROR
    assert "trainer-00001-of-00003.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("run", ["qwen3"], indirect=True)
def test_an_export_into_the_checkpoint_is_refused(run: Any) -> None:
    before = sorted(run[0].rglob("*"))
    assert main(["export", str(run[0]), "--out", str(run[0] / "step-000020" / "trainer")]) == ExitCode.USER_ERROR
    assert sorted(run[0].rglob("*")) == before


def test_the_checkpoint_loads_afterwards(folders: dict[str, Path], tmp_path: Path) -> None:
    """Three ranks wrote shares of one state; one rank goes on from them."""
    actor = make(folders["qwen3"], FORMATS["bf16"])
    step(actor, batch(1))
    made = checkpoint(actor, tmp_path / "run", folders["qwen3"], ranks=3)
    save(actor, tmp_path)
    other = make(folders["qwen3"], FORMATS["bf16"])
    other.load(made / "trainer")
    assert step(other, batch(2)) == step(actor, batch(2))
    with pytest.raises(UserError, match="are missing from the trainer state"):
        shutil.copytree(made / "trainer", tmp_path / "less")
        (tmp_path / "less" / "trainer-00001-of-00003.json").unlink()
        other.load(tmp_path / "less")
