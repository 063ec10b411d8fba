"""`plan --config` looks at the whole config.json: its quantization_config, its language model, and errors that name the file given."""

import json
from pathlib import Path
from typing import Any

import pytest

from lprl_cli import exits
from lprl_cli.main import main

CONFIG = {
    "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 2560, "num_attention_heads": 32, "num_key_value_heads": 8,
    "head_dim": 128, "intermediate_size": 9728, "num_hidden_layers": 36, "vocab_size": 151936, "tie_word_embeddings": True,
    "max_position_embeddings": 40960,
}  # fmt: skip
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}


def packed(**weights: Any) -> dict[str, Any]:
    groups = {"group_0": {"targets": ["Linear"], "weights": {**INT4, **weights}}}
    return {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups, "ignore": ["lm_head"]}


def plan(folder: Path, config: dict[str, Any], *arguments: str) -> int:
    file = folder / "kimi-config.json"
    file.write_text(json.dumps(config))
    return main(["plan", *(arguments or ("qwen3-4b-fp8",)), "--config", str(file)])


@pytest.mark.parametrize(
    ("section", "text"),
    [
        (
            {"quant_method": "modelopt", "quant_algo": "NVFP4"},
            "'modelopt' (ModelOpt NVFP4) is not supported; fits fp8 or compressed-tensors",
        ),
        ({"quant_algo": "FP8", "producer": {"name": "modelopt"}}, "None (ModelOpt FP8) is not supported"),
        ({"quant_method": "awq"}, "'awq' is not supported"),
        ({"quant_method": "gptq", "bits": 4}, "'gptq' is not supported"),
        (packed(symmetric=False), "asymmetric"),
        (packed(actorder="group"), "actorder"),
        (packed(num_bits=8), "8"),
        (packed(group_size=48), "48"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, "weight_block_size"),
        ("fp8", "needs an object"),
    ],
)
def test_a_format_that_convert_refuses_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], section: Any, text: str) -> None:
    assert plan(tmp_path, {**CONFIG, "quantization_config": section}) == exits.USER_ERROR
    out, err = capsys.readouterr()
    assert out == "" and text in err
    assert err.startswith(f"error: {tmp_path}/kimi-config.json: ") and "\n  fix: " in err, err


@pytest.mark.parametrize("changes", [{"model_type": "kimi_k3"}, {"hidden_size": "wide"}, {"num_hidden_layers": None}])
def test_refusals_name_the_file_given_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any]) -> None:
    assert plan(tmp_path, {**CONFIG, **changes}) == exits.USER_ERROR
    err = capsys.readouterr().err
    assert err.startswith(f"error: {tmp_path}/kimi-config.json: {next(iter(changes))}") and "\n  fix: " in err


def test_a_readable_quantisation_is_planned_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fp8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    assert plan(tmp_path, {**CONFIG, "quantization_config": fp8}) == exits.OK
    out = capsys.readouterr().out
    assert "bf16 for training" in out and "fp8-block for rollout" not in out  # served as it is, dequantised to train from


def test_an_int4_source_of_another_group_is_refused_as_the_operator_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = {**CONFIG, "quantization_config": packed(group_size=32)}
    manifest = tmp_path / "job.yaml"
    from lprl_api.catalog.presets import preset_manifest

    document = preset_manifest("qwen3-4b-fp8")
    document["spec"]["precision"] = {"rollout": "int4"}
    document["spec"]["backends"] = {"rollout": "torch", "trainer": "megatron"}
    document["spec"]["topology"]["rollout"] = {}
    manifest.write_text(json.dumps(document))
    assert plan(tmp_path, job, str(manifest)) == exits.USER_ERROR
    assert "precision.int4.groupSize: got 128; need 32" in capsys.readouterr().err


def test_a_multimodal_model_is_planned_as_its_language_model_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = {"model_type": "some_vl", "architectures": ["SomeVlForConditionalGeneration"], "text_config": CONFIG}
    assert plan(tmp_path, whole) == exits.OK
    out = capsys.readouterr().out
    assert "4.02 B parameters (language model only)" in out
    assert "of a model whose other parts are not counted" in out
    assert plan(tmp_path, CONFIG) == exits.OK
    assert "language model only" not in capsys.readouterr().out


def test_weights_of_a_tower_that_is_known_are_counted_and_planned_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vision = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "out_hidden_size": 2560, "deepstack_visual_indexes": [5, 11, 17]}
    text = {**CONFIG, "model_type": "qwen3_vl_text"}
    whole = {"model_type": "qwen3_vl", "tie_word_embeddings": True, "text_config": text, "vision_config": vision}
    assert plan(tmp_path, whole) == exits.OK
    out = capsys.readouterr().out
    assert "4.44 B parameters, 415.35 M of them outside the language model" in out
    assert "engines and folders hold them in BF16, the trainer does not" in " ".join(out.split())


def test_what_no_trainer_trains_is_planned_and_said_to_be_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lprl_api.catalog.presets import preset_manifest

    document = preset_manifest("qwen3-4b-fp8")
    spec = document["spec"]
    spec.update(precision={}, backends={}, optimizer={})
    spec["topology"].update(trainer={}, rollout={"maxConcurrency": 8})
    manifest = tmp_path / "job.yaml"
    manifest.write_text(json.dumps(document))
    assert plan(tmp_path, {"text_config": CONFIG, "model_type": "llava", "tie_word_embeddings": True}, str(manifest)) == exits.OK
    out, err = capsys.readouterr()
    assert "4.02 B parameters" in out
    assert "warning: " in err and "torch trains no language model that is a part of another (text_config)" in err
