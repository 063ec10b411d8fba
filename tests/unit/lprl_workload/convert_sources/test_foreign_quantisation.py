"""Quantised sources of others: tensors beside the codes that change what they mean are refused everywhere; the scope is what is stored."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Int4Group, WeightFormat
from lprl_api.model.formats.fp8_block import CompressedFp8Block
from lprl_api.model.hf_config import shape_from_config
from lprl_api.spec.precision import Scope
from lprl_workload.convert.export import convert_folder
from lprl_workload.convert.inspect import inspect_folder
from lprl_workload.convert.run import make_planner
from lprl_workload.convert.verify import verify_folder
from lprl_workload.convert.weights import ModelFolder

DENSE = Int4Group(group_size=32, scope=Scope.ALL_LINEAR)
Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def quantised(make_model: Any, tmp_path: Path) -> Callable[..., Path]:
    """Return a function (format, **tensors beside q_proj of layer 0) -> folder without manifest, as others publish them."""

    def make(fmt: WeightFormat = DENSE, architecture: str = "qwen3", **beside: torch.Tensor) -> Path:
        source = make_model("source", architecture=architecture, shards=1)
        folder = tmp_path / "quantised"
        convert_folder(source, folder, fmt, 1)
        (folder / "manifest.json").unlink()
        (folder / "conversion_report.json").unlink()
        file = next(folder.glob("*.safetensors"))
        save_file(load_file(file) | {f"{Q}.{leaf}": tensor for leaf, tensor in beside.items()}, file)
        (folder / "model.safetensors.index.json").unlink()
        return folder

    return make


def cols(folder: Path) -> int:
    return int(json.loads((folder / "config.json").read_text())["hidden_size"])


ORDERS = {
    "shuffled": torch.arange(64).flip(0) // 32,
    "one-channel-moved": torch.tensor([1] + [0] * 31 + [1] * 32),
    "too-short": torch.arange(32) // 32,
    "empty": torch.zeros(0, dtype=torch.int64),
    "another-group-size": torch.arange(64) // 16,
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_scales_out_of_order_are_refused_by_inspect_convert_and_every_reader(quantised: Any, order: torch.Tensor) -> None:
    folder = quantised(weight_g_idx=order.to(torch.int32))
    for read in (
        lambda: inspect_folder(folder, ""),
        lambda: make_planner(folder, Bf16(), shape_from_config(json.loads((folder / "config.json").read_text()))),
        lambda: ModelFolder(folder),
        lambda: verify_folder(folder, None, None),
    ):
        with pytest.raises(UserError, match=rf"tensor {Q}\.weight_g_idx: input channels take their scales out of order") as refused:
            read()
        assert "actorder weight" in (refused.value.remedy or "")


@pytest.mark.parametrize("order", [torch.arange(64) // 32, torch.full((64,), -1)], ids=["identity", "unset"])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_an_order_that_is_the_stored_one_changes_nothing(quantised: Any, tmp_path: Path, order: torch.Tensor, dtype: torch.dtype) -> None:
    folder = quantised()
    assert cols(folder) == 64
    wanted = {name: ModelFolder(folder).weight(name).values() for name in ModelFolder(folder).names()}
    file = next(folder.glob("*.safetensors"))
    save_file(load_file(file) | {f"{Q}.weight_g_idx": order.to(dtype)}, file)
    convert_folder(folder, tmp_path / "back", Bf16(), 1)
    found = ModelFolder(tmp_path / "back")
    assert set(found.names()) == set(wanted)
    assert all(torch.equal(found.weight(name).values(), value) for name, value in wanted.items())
    assert not verify_folder(folder, tmp_path / "source", None).problems


def test_an_order_beside_codes_that_have_no_groups_is_refused(quantised: Any) -> None:
    folder = quantised(Fp8Channel(), weight_g_idx=(torch.arange(64) // 32).to(torch.int32))
    with pytest.raises(UserError, match="out of order"):
        inspect_folder(folder, "")


def test_zero_points_are_refused_by_inspect_too(quantised: Any) -> None:
    folder = quantised(weight_zero_point=torch.zeros(8, 2, dtype=torch.int32))
    with pytest.raises(UserError, match=rf"{Q}\.weight_zero_point: asymmetric weights \(zero points\) are not supported"):
        inspect_folder(folder, "")


ATTENTION, MLP = "*.self_attn.*", "*.mlp.*"
SCOPES = [
    pytest.param("qwen3", DENSE, "all-linear", id="dense"),
    pytest.param("qwen3", DENSE.model_copy(update={"exclude_modules": (ATTENTION,)}), "all-linear", id="dense-without-attention"),
    pytest.param("qwen3", DENSE.model_copy(update={"exclude_modules": (MLP,)}), "all-linear", id="dense-without-mlp"),
    pytest.param("qwen3", DENSE.model_copy(update={"exclude_modules": ("model.layers.0.*",)}), "all-linear", id="dense-without-layer-0"),
    pytest.param("llama", DENSE.model_copy(update={"exclude_modules": ("*.o_proj",)}), "all-linear", id="dense-without-o-proj"),
    pytest.param("qwen3-moe", Int4Group(group_size=32), "routed-experts", id="experts"),
    pytest.param("qwen3-moe", DENSE, "all-linear", id="moe-all"),
    pytest.param("qwen3-moe", DENSE.model_copy(update={"exclude_modules": (ATTENTION,)}), "routed-experts", id="moe-without-attention"),
    pytest.param("moonlight", DENSE.model_copy(update={"exclude_modules": (ATTENTION,)}), "all-linear", id="shared-experts-too"),
    pytest.param("moonlight", Int4Group(group_size=32), "routed-experts", id="mla-experts"),
]


@pytest.mark.parametrize(("architecture", "fmt", "scope"), SCOPES)
def test_the_scope_of_a_folder_is_that_of_what_has_codes(quantised: Any, architecture: str, fmt: Int4Group, scope: str) -> None:
    folder = quantised(fmt, architecture)
    found = inspect_folder(folder, "").quantization
    assert found.scope == scope and found.group_size == 32
    # What config.json alone says is the same.
    assert isinstance(ModelFolder(folder).fmt, Int4Group) and ModelFolder(folder).fmt.scope.value == scope


def in_compressed_tensors_dress(folder: Path) -> Path:
    """Store a folder of block FP8 as llm-compressor's FP8_BLOCK does."""
    file = next(folder.glob("*.safetensors"))
    save_file({name.replace("weight_scale_inv", "weight_scale"): t for name, t in load_file(file).items()}, file)
    config = json.loads((folder / "config.json").read_text())
    weights = {"num_bits": 8, "type": "float", "strategy": "block", "symmetric": True, "dynamic": False, "block_structure": [128, 128]}
    inputs = {"num_bits": 8, "type": "float", "strategy": "group", "group_size": 128, "symmetric": True, "dynamic": True}
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": inputs}},
        "ignore": ["lm_head", *config["quantization_config"]["modules_to_not_convert"]],
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("architecture", ["qwen3", "moonlight"])
def test_block_fp8_in_compressed_tensors_dress_is_read_as_the_same_numbers(quantised: Any, tmp_path: Path, architecture: str) -> None:
    folder = quantised(Fp8Block(), architecture)
    wanted = {name: ModelFolder(folder).weight(name).values() for name in ModelFolder(folder).names()}
    in_compressed_tensors_dress(folder)
    assert isinstance(ModelFolder(folder).fmt, CompressedFp8Block)
    found = inspect_folder(folder, "").quantization
    # No engine is given these bytes as they are: what a push calls its scales is called otherwise here.
    assert found.format == "fp8-block" and not Fp8Block().held_by(found)
    convert_folder(folder, tmp_path / "back", Bf16(), 1)
    back = ModelFolder(tmp_path / "back")
    assert set(back.names()) == set(wanted)
    assert all(torch.equal(back.weight(name).values(), value.to(torch.bfloat16)) for name, value in wanted.items())
    convert_folder(folder, tmp_path / "again", Fp8Block(), 1)
    assert verify_folder(tmp_path / "again", folder, None).problems == ()
