"""Where weights lie beside the config.json that is planned with, they are counted in the headers of their files."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from lprl_api.errors import UserError
from lprl_api.model.checkpoint_tensors import checkpoint_tensors
from lprl_api.model.layouts.planned import planned_shape
from lprl_api.model.model_shape import ModelShape
from lprl_api.model.weights import parameters, whole_parameters
from lprl_cli import exits
from lprl_cli.config_json import differences, inspection_of
from lprl_cli.main import main

CONFIG: dict[str, Any] = {
    "model_type": "qwen3", "hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "intermediate_size": 128,
    "num_hidden_layers": 2, "vocab_size": 1000, "tie_word_embeddings": False,
}  # fmt: skip
VL = {"model_type": "some_vl", "text_config": CONFIG, "tie_word_embeddings": False}


def folder(path: Path, config: dict[str, Any], more: dict[str, tuple[str, tuple[int, ...]]], *, without: str = "-") -> Path:
    """Write a config.json and the headers of two files that hold its weights and `more`."""
    plain = {name: ("BF16", shape) for name, shape in checkpoint_tensors(planned_shape(config)).items() if without not in name}
    names = list((plain | more).items())
    for number, part in enumerate((names[::2], names[1::2])):
        header = {name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]} for name, (dtype, shape) in part}
        text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
        (path / f"model-{number}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    (path / "config.json").write_text(json.dumps(config))
    return path / "config.json"


def test_weights_that_config_json_means_are_counted_without_a_word(tmp_path: Path) -> None:
    beside: dict[str, tuple[str, tuple[int, ...]]] = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", (16,)),
        "model.layers.0.self_attn.k_proj.k_scale": ("F32", (1,)),
        "model.layers.2.eh_proj.weight": ("BF16", (64, 128)),  # a layer that predicts further tokens
        "mtp.layers.0.mlp.down_proj.weight": ("BF16", (64, 128)),
        "model.position_ids": ("I64", (1, 512)),
    }
    seen = inspection_of(str(folder(tmp_path, CONFIG, beside)))
    assert seen.notes == () and seen.shape == planned_shape(CONFIG)


def test_packed_codes_are_as_many_weights_as_they_stand_for(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.down_proj"
    more: dict[str, tuple[str, tuple[int, ...]]] = {f"{name}.weight_packed": ("I32", (64, 16)), f"{name}.weight_scale": ("BF16", (64, 1))}
    assert inspection_of(str(folder(tmp_path, CONFIG, more, without=name))).notes == ()


def test_a_tower_of_a_kind_nobody_counted_is_counted_in_its_folder(tmp_path: Path) -> None:
    config = folder(tmp_path, VL, {"vision.blocks.0.weight": ("BF16", (100, 10))})
    assert planned_shape(VL).tower_parameters is None
    seen = inspection_of(str(config))
    assert seen.shape.tower_parameters == 1000 and seen.notes == ()
    assert whole_parameters(seen.shape) == parameters(seen.shape) + 1000


@pytest.mark.parametrize(("without", "more"), [("-", {"value_head.weight": ("BF16", (1, 64))}), ("layers.1.mlp.up_proj", {})])
def test_files_that_hold_more_or_fewer_weights_than_config_json_means_are_told(tmp_path: Path, without: str, more: dict[str, Any]) -> None:
    config, means = folder(tmp_path, CONFIG, more, without=without), parameters(planned_shape(CONFIG))
    holds = means + 64 if more else means - 64 * 128
    (note,) = inspection_of(str(config)).notes
    assert note.startswith(f"{tmp_path}: the files hold {holds} weights, config.json means {means}; ")


def test_a_file_that_is_no_safetensors_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = folder(tmp_path, CONFIG, {})
    (tmp_path / "more.safetensors").write_bytes(b"<html>not found</html>")
    assert main(["plan", "qwen3-4b-fp8", "--config", str(config)]) == exits.USER_ERROR
    assert f"error: {tmp_path}/more.safetensors: no safetensors file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "header",
    [
        '{"a": 5}', '{"a": {"dtype": "F32", "shape": "ab"}}', '{"a": {"dtype": "F32", "shape": null}}',
        '{"a": {"dtype": "F32", "shape": [[1]]}}', '{"a": {"dtype": "F32", "shape": [-1]}}', '{"a": {"dtype": 3, "shape": [1]}}',
        '{"a": ' + "[" * 200_000 + "]" * 200_000 + "}", '{"a": {"dtype": "F32", "shape": [' + "9" * 5000 + "]}}",
    ],
    ids=["number", "text", "null", "nested", "negative", "dtype", "deep", "digits"],
)  # fmt: skip
def test_a_header_that_is_none_is_named(header: str, tmp_path: Path) -> None:
    config = folder(tmp_path, CONFIG, {})
    (tmp_path / "more.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode())
    with pytest.raises(UserError, match=r"more\.safetensors: no safetensors file"):
        inspection_of(str(config))


def test_a_config_json_with_a_number_of_thousands_of_digits_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"vocab_size": ' + "9" * 5000 + "}")
    with pytest.raises(UserError, match=r"config\.json: Exceeds the limit"):
        inspection_of(str(tmp_path / "config.json"))


def test_an_inspection_counts_and_a_config_json_that_says_otherwise_is_told() -> None:
    seen = planned_shape({**CONFIG, "num_hidden_layers": 3})
    (note,) = differences(planned_shape(CONFIG), seen, "config.json")
    assert note.endswith("another model than the job's inspection saw, which is planned with: layers 2 in the file, 3 in the source")
    assert differences(seen, seen, "config.json") == ()


def test_a_job_of_the_cluster_is_planned_as_it_was_inspected(tmp_path: Path) -> None:
    from lprl_api.catalog.presets import preset_manifest
    from lprl_api.rules.parse import parse_job
    from lprl_cli.commands.plan import _known
    from lprl_cli.manifest import Manifest

    document, seen = preset_manifest("qwen3-4b-fp8"), ModelShape.model_validate(planned_shape({**CONFIG, "num_hidden_layers": 3}))
    manifest = Manifest(document, "ns/job", {"": 1})
    _, _, found = _known(str(folder(tmp_path, CONFIG, {})), manifest, parse_job(document), seen)
    assert found is not None and found.shape == seen and "layers 2 in the file, 3 in the source" in found.notes[0]
