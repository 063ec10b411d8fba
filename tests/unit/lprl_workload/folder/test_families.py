"""Families without a table: one of each layout is converted and read back exactly, or refused by name; all of them: tests/zoo."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.zoo.families import CHEAP, Case
from tests.zoo.read_back import check_case
from tests.zoo.tiny import save, tiny_model

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, Fp8Block, Int4Group
from lprl_api.names import ENV_TERMINATION_LOG, ENV_VOLUMES_ROOT, ExitCode
from lprl_api.spec.precision import Scope
from lprl_api.spec.sources import ModelSource
from lprl_api.wire.runconfig import InspectConfig
from lprl_cli.commands.workload import _table, inspection_of
from lprl_workload.__main__ import main
from lprl_workload.convert.export import convert_folder
from lprl_workload.convert.inspect import look_at
from lprl_workload.convert.verify import verify_folder
from lprl_workload.folder.model import read_contents


@pytest.mark.parametrize("case", CHEAP, ids=lambda case: case.model_type)
def test_a_family_without_a_table_is_converted_exactly_or_refused_by_name(case: Case, tmp_path: Path) -> None:
    check_case(case, tmp_path)


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny_model("mixtral", {}), tmp_path_factory.mktemp("zoo") / "mixtral")


def changed(source: Path, folder: Path, tensors: dict[str, Any] | None = None, **config: Any) -> Path:
    """Copy a folder with other tensors (None: without one) and other keys of config.json."""
    folder.mkdir()
    kept = {name: t for name, t in (load_file(source / "model.safetensors") | (tensors or {})).items() if t is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(json.loads((source / "config.json").read_text()) | config))
    return folder


W1 = "model.layers.1.block_sparse_moe.experts.2.w1.weight"
WRONG = {
    "missing": ({W1: None}, {}, rf"1 tensor missing: {W1}"),
    "of-another-shape": ({W1: torch.zeros(64, 128)}, {}, rf"tensor {W1}: shape \[64, 128\]; MixtralForCausalLM of config.json has \[256"),
    "unknown": ({"model.layers.0.extra.weight": torch.zeros(2, 2)}, {}, "model.layers.0.extra.weight is not in a MixtralForCausalLM"),
    "another-config": ({}, {"num_local_experts": 3}, r"is not in a MixtralForCausalLM|shape"),
    "a-layer-less": ({}, {"num_hidden_layers": 3}, "tensors missing: model.layers.2"),
}


@pytest.mark.parametrize(("tensors", "config", "message"), WRONG.values(), ids=WRONG)
def test_a_folder_that_is_not_its_class_is_refused_by_name(
    mixtral: Path, tmp_path: Path, tensors: dict[str, Any], config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read_contents(changed(mixtral, tmp_path / "odd", tensors, **config))


def test_a_class_transformers_does_not_hold_goes_by_the_index_and_says_so(mixtral: Path, tmp_path: Path) -> None:
    folder = changed(mixtral, tmp_path / "own", model_type="of_its_own", architectures=["OwnForCausalLM"])
    by_class, by_index = read_contents(mixtral).ruled, read_contents(folder)
    assert by_class is not None and by_index.ruled is not None
    assert by_index.ruled.way == "index" and by_index.ruled.kinds == by_class.kinds
    assert by_index.notes == ("names and shapes alone say what is linear: transformers has no class of model_type 'of_its_own'",)
    convert_folder(folder, tmp_path / "fp8", Fp8Block(), 1)
    assert verify_folder(tmp_path / "fp8", folder, None).problems == ()


def test_experts_kept_as_in_memory_are_split_as_the_class_publishes_them(mixtral: Path, tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    tiny_model("mixtral", {}).save_pretrained(folder, save_original_format=False)
    assert "model.layers.0.mlp.experts.gate_up_proj" in load_file(folder / "model.safetensors")
    for source, name in ((mixtral, "a"), (folder, "b")):
        convert_folder(source, tmp_path / name, Fp8Block(), 1)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert set(one) == set(other) and all(torch.equal(one[n].view(torch.uint8), other[n].view(torch.uint8)) for n in one)
    assert verify_folder(tmp_path / "b", folder, None).problems == ()


def test_a_quantised_folder_is_read_back_by_its_class(mixtral: Path, tmp_path: Path) -> None:
    fmt = Int4Group(group_size=32, scope=Scope.ROUTED_EXPERTS)
    convert_folder(mixtral, tmp_path / "int4", fmt, 1)
    convert_folder(tmp_path / "int4", tmp_path / "back", Bf16(), 1)
    assert verify_folder(tmp_path / "int4", mixtral, None).problems == ()
    assert set(load_file(tmp_path / "back" / "model.safetensors")) == set(load_file(mixtral / "model.safetensors"))


def test_inspect_says_what_it_found_and_by_which_way(mixtral: Path, tmp_path: Path) -> None:
    looked = look_at(mixtral).document()
    assert (looked["modelClass"], looked["way"], looked["linear"], looked["routed"]) == ("MixtralForCausalLM", "class", 32, 24)
    assert "trained by its class (torch)" in _table("m", looked)
    assert inspection_of(looked, "m").shape.architecture == "MixtralForCausalLM"  # what `lprl render --model` asks
    other = look_at(changed(mixtral, tmp_path / "own", model_type="of_its_own", architectures=["OwnForCausalLM"])).document()
    assert "converted only, not trained here" in _table("m", other)
    with pytest.raises(UserError, match="m: model_type of_its_own cannot be trained here; model_types that can: llama"):
        inspection_of(other, "m")


def test_a_job_that_would_train_it_is_refused_at_inspection_in_one_line(
    mixtral: Path, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ENV_VOLUMES_ROOT, str(tmp_path))
    monkeypatch.setenv(ENV_TERMINATION_LOG, str(tmp_path / "log"))
    (tmp_path / "models").mkdir()
    changed(mixtral, tmp_path / "models" / "mixtral", model_type="of_its_own", architectures=["OwnForCausalLM"])
    config = tmp_path / "inspect.json"
    config.write_text(json.dumps(InspectConfig(source=ModelSource(volume="models", path="mixtral")).document()))
    assert main(["inspect", "--config", str(config)]) == ExitCode.USER_ERROR
    said = capsys.readouterr().err
    assert "model_type of_its_own cannot be trained here; model_types that can: llama" in said
    assert "problems" not in said and "Traceback" not in said


def test_what_modelopt_has_quantised_is_refused_by_name(mixtral: Path, tmp_path: Path) -> None:
    folder = changed(mixtral, tmp_path / "nvfp4", model_type="of_its_own")
    (folder / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "NVFP4"}}')
    with pytest.raises(UserError, match=r"hf_quant_config.json: weights quantised by ModelOpt \(NVFP4\) cannot be read"):
        convert_folder(folder, tmp_path / "out", Bf16(), 1)


def test_layers_that_predict_further_tokens_are_converted_by_the_rule_and_copied_where_they_lie_elsewhere(tmp_path: Path) -> None:
    source = save(tiny_model("glm4_moe", {}), tmp_path / "source")
    last = {n: t for n, t in load_file(source / "model.safetensors").items() if n.startswith("model.layers.1.")}
    further = {name.replace("layers.1.", "layers.2."): tensor.clone() for name, tensor in last.items()}
    further |= {"model.layers.2.eh_proj.weight": torch.ones(128, 256), "model.layers.2.enorm.weight": torch.ones(128)}
    beside = {"mtp.fc.weight": torch.ones(128, 256), "mtp.layers.0.self_attn.q_proj.weight": torch.ones(128, 128)}
    folder = changed(source, tmp_path / "mtp", further | beside, num_nextn_predict_layers=1)
    ruled = read_contents(folder).ruled
    assert ruled is not None and ruled.way == "class"
    inside = {name for name in ruled.kinds if name.startswith("model.layers.2.")}
    assert inside == {name for name in further if ("_proj.weight" in name and "eh_proj" not in name)}
    convert_folder(folder, tmp_path / "fp8", Fp8Block(), 1)
    assert verify_folder(tmp_path / "fp8", folder, None).problems == ()
    made = load_file(tmp_path / "fp8" / "model.safetensors")
    assert all(torch.equal(made[name], tensor) for name, tensor in beside.items())
    assert json.loads((tmp_path / "fp8" / "config.json").read_text())["num_nextn_predict_layers"] == 1
