"""What a trained checkpoint takes over from its source: layers that config.json promises and no trainer here computes."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lprl_api.model.formats import Bf16, Fp8Block, Int4Group
from lprl_api.model.hf_config import shape_from_config
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_workload.checkpoint.hf_folder import write_trained
from lprl_workload.convert.export import convert_folder, export_checkpoint
from lprl_workload.convert.inspect import inspect_folder
from lprl_workload.convert.weights import ModelFolder
from lprl_workload.folder.untrained import NOTE
from lprl_workload.launch.export import export_command

sys.path.insert(0, str(Path(__file__).parent))
from test_train_actor import batch, make, step

FORMATS = {"bf16": Bf16(), "fp8-block": Fp8Block(), "int4-group": Int4Group(group_size=32)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DeepSeek-V3 of two layers with one that predicts the token after next, in a file of its own."""
    folder = tmp_path_factory.mktemp("models") / "deepseek-v3-mtp"
    generate_model(folder, ModelOptions(architecture="deepseek-v3", size="tiny", seed=1))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_nextn_predict_layers": 1}))
    weights = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    torch.manual_seed(5)
    further = {n.replace("layers.1.", "layers.2."): torch.randn_like(t.float()).to(t.dtype) for n, t in weights.items() if "layers.1." in n}
    hidden = config["hidden_size"]
    further["model.layers.2.eh_proj.weight"] = torch.randn(hidden, 2 * hidden).bfloat16()
    further |= {f"model.layers.2.{n}.weight": torch.ones(hidden).bfloat16() for n in ("enorm", "hnorm", "shared_head.norm")}
    further["model.layers.2.shared_head.head.weight"] = torch.randn_like(weights["lm_head.weight"].float()).bfloat16()
    further["model.layers.2.embed_tokens.weight"] = weights["model.embed_tokens.weight"].clone()
    for file in [*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")]:
        file.unlink()
    files = {"model-00001-of-00002.safetensors": weights, "model-00002-of-00002.safetensors": further}
    for name, tensors in files.items():
        save_file(tensors, folder / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, tensors in files.items() for name in tensors}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def trained(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of a checkpoint after one real optimizer step."""
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    folder.mkdir()
    actor = make(source, Bf16())
    step(actor, batch(0))
    write_trained(folder, actor.source(), actor.peers(), source, shape_from_config(json.loads((source / "config.json").read_text())))
    actor.close()
    return folder


def further(folder: Path) -> dict[str, torch.Tensor]:
    model = ModelFolder(folder)
    return {name: model.weight(name).values() for name in model.names() if ".layers.2." in name}


def test_a_checkpoint_has_the_further_layers_that_its_config_promises(source: Path, trained: Path) -> None:
    names = set(ModelFolder(source).names())
    assert set(ModelFolder(trained).names()) == names
    wanted = further(source)
    found = further(trained)
    assert len(wanted) > 20 and found.keys() == wanted.keys()
    assert all(torch.equal(found[n], wanted[n]) and found[n].dtype == wanted[n].dtype for n in wanted)
    moved = ModelFolder(trained).weight("model.layers.1.mlp.experts.0.up_proj.weight").values()
    assert not torch.equal(moved, ModelFolder(source).weight("model.layers.1.mlp.experts.0.up_proj.weight").values())
    assert json.loads((trained / NOTE).read_text())["layers"] == [2]
    assert inspect_folder(trained, "").shape.mtp_layers == 1


@pytest.mark.parametrize("kind", FORMATS)
def test_an_export_in_any_format_has_the_further_layers_as_a_conversion_of_the_source_has(
    source: Path, trained: Path, tmp_path: Path, kind: str
) -> None:
    out = export_checkpoint(trained, tmp_path / "out", [(kind, FORMATS[kind])], 1)[kind]
    convert_folder(source, tmp_path / "direct", FORMATS[kind], 1)
    wanted, found = further(tmp_path / "direct"), further(out)
    assert found.keys() == wanted.keys() and all(torch.equal(found[n], wanted[n]) for n in wanted)
    assert "untrained         layers 2: multi-token prediction" in (out / "conversion_report.txt").read_text()


def test_the_command_says_which_layers_are_not_trained(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export_command([str(trained), "--out", str(tmp_path / "out")]) == 0
    assert "layers 2 (multi-token prediction) are those training started from" in capsys.readouterr().out


def test_a_model_without_such_layers_gets_no_note(tmp_path: Path) -> None:
    generate_model(tmp_path / "source", ModelOptions(architecture="qwen3", size="tiny"))
    actor = make(tmp_path / "source", Bf16())
    (tmp_path / "out").mkdir()
    shape = shape_from_config(json.loads((tmp_path / "source" / "config.json").read_text()))
    write_trained(tmp_path / "out", actor.source(), actor.peers(), tmp_path / "source", shape)
    assert not (tmp_path / "out" / NOTE).exists()
    assert set(ModelFolder(tmp_path / "out").names()) == set(ModelFolder(tmp_path / "source").names())
