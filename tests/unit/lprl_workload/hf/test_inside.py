"""A language model that is a part of another (`text_config`): built by itself under the folder's names, everything else copied."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.zoo.families import ALL
from tests.zoo.tiny import save, tiny_model

from lprl_api.model.config_file import shape_of
from lprl_api.model.formats import Bf16, Fp8Block
from lprl_api.model.proven import PROVEN
from lprl_workload.convert.export import convert_folder
from lprl_workload.convert.inspect import inspect_folder
from lprl_workload.hf.model import build_model
from lprl_workload.hf.served import ServedModel
from lprl_workload.hf.slots import weight_slots
from lprl_workload.hf.untrained import further_layers, untrained_weights

MTP = {"mtp.fc.weight": torch.ones(128, 256), "mtp.layers.0.self_attn.q_proj.weight": torch.ones(128, 128)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save(tiny_model("qwen3_5", {}), tmp_path_factory.mktemp("inside") / "source")
    weights = load_file(folder / "model.safetensors") | {name: tensor.bfloat16() for name, tensor in MTP.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def shape(folder: Path) -> Any:
    return shape_of(json.loads((folder / "config.json").read_text()), "config.json")


def test_trained_and_copied_tensors_together_are_the_folder(source: Path) -> None:
    stored = load_file(source / "model.safetensors")
    trained = {slot.name for slot in weight_slots(build_model(source, shape(source), "meta"), shape(source))}
    copied = {item.name: item.tensor for item in untrained_weights(source, shape(source))}
    assert "qwen3_5" in PROVEN and trained | copied.keys() == stored.keys() and not trained & copied.keys()
    assert all(name.startswith("model.language_model.") or name == "lm_head.weight" for name in trained)
    assert any(name.startswith("model.visual.") for name in copied) and copied.keys() >= MTP.keys()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in copied.items())
    further = further_layers(source, shape(source))
    assert {further(name) for name in copied} == {None, 2} and {name for name in copied if further(name) == 2} == set(MTP)


def test_an_engine_serves_it_in_fp8_under_the_folders_names(source: Path, tmp_path: Path) -> None:
    assert inspect_folder(source, "").model_class == "Qwen3_5ForConditionalGeneration"
    convert_folder(source, tmp_path / "fp8", Fp8Block(), 1)
    plain, served = (ServedModel(folder, fmt, shape(source), "cpu") for folder, fmt in ((source, Bf16()), (tmp_path / "fp8", Fp8Block())))
    plain.load_folder(source)
    served.load_folder(tmp_path / "fp8")
    assert "model.language_model.layers.0.linear_attn.in_proj_qkv.weight_scale_inv" in served.served_tensors()
    apart = torch.tensor(plain.score(range(5, 40))) - torch.tensor(served.score(range(5, 40)))
    assert 1e-4 < float(apart.abs().mean()) < 0.5


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "qwen3_vl"])
def test_a_language_model_without_a_class_of_its_own_is_taken_out_of_the_whole(model_type: str, tmp_path: Path) -> None:
    source = save(tiny_model(model_type, next(case.changes for case in ALL if case.model_type == model_type)), tmp_path / "source")
    stored = load_file(source / "model.safetensors")
    trained = {slot.name for slot in weight_slots(build_model(source, shape(source), "meta"), shape(source))}
    copied = {item.name for item in untrained_weights(source, shape(source))}
    assert trained | copied == stored.keys() and not trained & copied
    assert any("visual" in name for name in copied) and not any("visual" in name for name in trained)
