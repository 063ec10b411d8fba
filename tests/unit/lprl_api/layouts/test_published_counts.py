"""Every published config.json at hand is counted to the last weight, or refused with file, key and what to do."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.lprl_api.layouts.published import Published, published

from lprl_api.errors import UserError
from lprl_api.model.hf_quantization import parse_quantization_config
from lprl_api.model.layouts.planned import planned_shape
from lprl_api.model.model_shape import ModelShape
from lprl_api.model.weights import parameters, whole_parameters
from lprl_cli.config_json import inspection_of

FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}
PACKED = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": INT4}},
    "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"],
}
SECTIONS: dict[str, dict[str, Any]] = {
    "fp8": FP8,
    "fp8 MIXED_PRECISION": {**FP8, "quant_algo": "MIXED_PRECISION"},
    "compressed-tensors pack-quantized": PACKED,
    "compressed-tensors mxfp4-pack-quantized": {**PACKED, "format": "mxfp4-pack-quantized"},
    "mxfp4": {"quant_method": "mxfp4"},
    "modelopt NVFP4": {"quant_method": "modelopt", "quant_algo": "NVFP4"},
    "modelopt MIXED_PRECISION": {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"},
}
KNOWN = [one for one in published() if one.parameters is not None]
NAMES = [(name, one) for one in published() for name in one.stored]


@pytest.mark.parametrize("one", KNOWN, ids=lambda one: one.name)
def test_the_weights_are_those_that_the_class_has(one: Published) -> None:
    shape = planned_shape(one.config)
    assert (parameters(shape), shape.tower_parameters) == (one.parameters, one.towers)
    assert whole_parameters(shape) == (one.parameters or 0) + (one.towers or 0)


@pytest.mark.parametrize("one", KNOWN, ids=lambda one: one.name)
def test_a_shape_is_the_same_after_a_journey_as_json(one: Published) -> None:
    shape = planned_shape(one.config)
    assert ModelShape.model_validate_json(json.dumps(shape.document())) == shape


@pytest.mark.parametrize(("name", "one"), NAMES, ids=[name for name, _ in NAMES])
def test_a_published_file_is_read_or_refused_with_file_key_and_remedy(tmp_path: Path, name: str, one: Published) -> None:
    section, _, beside = one.stored[name].partition("beside ")
    section = section.removesuffix(" | ")
    config = {**one.config, **({"quantization_config": SECTIONS[section]} if section else {})}
    (tmp_path / "config.json").write_text(json.dumps(config))
    if beside:
        (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": beside}}))
    if one.parameters is not None and not beside and _reads(config, section):
        assert parameters(inspection_of(str(tmp_path / "config.json")).shape) == one.parameters
        return
    with pytest.raises(UserError) as caught:
        inspection_of(str(tmp_path / "config.json"))
    assert caught.value.message.startswith(f"{tmp_path}/") and ".json: " in caught.value.message
    assert caught.value.remedy


def _reads(config: dict[str, Any], section: str) -> bool:
    """Return whether weights stored so are read: always where they are plain, in FP8 throughout, or in the INT4 of Kimi."""
    if section in ("", "fp8", "compressed-tensors pack-quantized"):
        return config.get("expert_dtype", "fp8") == "fp8"
    try:
        parse_quantization_config(config, planned_shape(config))
    except UserError:
        return False
    return "modelopt" not in section


def test_weights_beside_a_modelopt_section_are_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(KNOWN[0].config))
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}}))
    with pytest.raises(UserError, match=r"hf_quant_config.json: weights quantised by ModelOpt \(NVFP4\) cannot be read"):
        inspection_of(str(tmp_path / "config.json"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "kimi_k3"}, "model_type: got 'kimi_k3'"),
        ({"num_hidden_layers": "many"}, "num_hidden_layers: got 'many'; needs a whole number"),
        ({"layer_types": ["full_attention"]}, "layer_types: got .*; needs a kind for each of the 92 layers"),
    ],
)
def test_what_cannot_be_counted_is_refused_by_its_key(change: dict[str, Any], said: str) -> None:
    config = next(one.config for one in KNOWN if one.name == "zai-org/GLM-4.6")
    mixed = {**config, **change, **({"model_type": "mistral", "sliding_window": 8} if "layer_types" in change else {})}
    mixed = {**mixed, **({"model_type": "ministral"} if "layer_types" in change else {})}
    with pytest.raises(UserError, match=said):
        planned_shape(mixed)
