import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from lprl_fixtures.__main__ import main
from lprl_fixtures.architectures import ARCHITECTURES, DIMENSIONS, model_config
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_fixtures.shape import model_shape
from lprl_fixtures.tensors import tensor_specs
from lprl_fixtures.weights import split

CLASSES = {
    "qwen3": "Qwen3ForCausalLM",
    "qwen3-moe": "Qwen3MoeForCausalLM",
    "deepseek-v3": "DeepseekV3ForCausalLM",
    "moonlight": "DeepseekV3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "llama": "LlamaForCausalLM",
}


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_transformers_loads_every_tensor_and_needs_no_other(tmp_path: Path, architecture: str, tied: bool) -> None:
    generate_model(tmp_path, ModelOptions(architecture, "tiny", tied=tied))
    model, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True, local_files_only=True)
    assert type(model).__name__ == CLASSES[architecture]
    assert not any(info.values())
    assert model.dtype == torch.bfloat16
    logits = model(torch.tensor([[4, 7, 9]])).logits
    assert torch.isfinite(logits).all() and logits.std() > 0


@pytest.mark.parametrize("architecture", ["qwen3-moe", "deepseek-v3"])
def test_experts_are_stored_one_by_one_or_fused(tmp_path: Path, architecture: str) -> None:
    generate_model(tmp_path / "single", ModelOptions(architecture, "tiny"))
    generate_model(tmp_path / "fused", ModelOptions(architecture, "tiny", fused_experts=True))
    single, fused = tensors(tmp_path / "single"), tensors(tmp_path / "fused")
    assert "model.layers.1.mlp.experts.3.down_proj.weight" in single
    d = DIMENSIONS["tiny"]
    assert fused["model.layers.1.mlp.experts.gate_up_proj"].shape == (d.experts, 2 * d.expert_ffn, d.hidden)
    assert sum(t.numel() for t in single.values()) == sum(t.numel() for t in fused.values())


def test_moonlight_has_no_low_rank_query_and_the_routing_bias_is_float32(tmp_path: Path) -> None:
    generate_model(tmp_path, ModelOptions("moonlight", "tiny"))
    found = tensors(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["q_lora_rank"] is None
    assert "model.layers.0.self_attn.q_proj.weight" in found and "model.layers.0.self_attn.q_a_proj.weight" not in found
    assert found["model.layers.1.mlp.gate.e_score_correction_bias"].dtype == torch.float32


def test_values_depend_on_seed_and_name_not_on_shards(tmp_path: Path) -> None:
    sizes = [generate_model(tmp_path / str(n), ModelOptions("qwen3", "tiny", shards=n)) for n in (1, 3)]
    one, three = tensors(tmp_path / "1"), tensors(tmp_path / "3")
    assert one.keys() == three.keys() and all(torch.equal(one[name], three[name]) for name in one)
    index = json.loads((tmp_path / "3" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == one.keys() and len(set(index["weight_map"].values())) == 3
    assert index["metadata"]["total_size"] == sizes[0] == sizes[1] == sum(t.nbytes for t in one.values())
    generate_model(tmp_path / "other", ModelOptions("qwen3", "tiny", seed=1))
    assert not torch.equal(one["lm_head.weight"], tensors(tmp_path / "other")["lm_head.weight"])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shape_counts_the_parameters_of_the_specs(architecture: str) -> None:
    config = model_config(architecture, "2gb", 32000, 0, 1)
    shape = model_shape(config)
    specs = list(tensor_specs(config))
    assert 2 * sum(spec.numel for spec in specs) >= 2e9
    assert {spec.name: spec.shape for spec in specs}["lm_head.weight"] == (shape.vocab, shape.hidden)
    assert (shape.moe is not None) == any(".experts." in spec.name for spec in specs)


def test_small_models_have_ragged_blocks_and_whole_groups() -> None:
    for architecture in ARCHITECTURES:
        linear = [s for s in tensor_specs(model_config(architecture, "demo", 48, 0, 1)) if len(s.shape) == 2 and "embed" not in s.name]
        assert any(s.shape[0] % 128 or s.shape[1] % 128 for s in linear)
        assert all(s.shape[1] % 64 == 0 for s in linear)


def test_split_cuts_into_non_empty_runs_in_order() -> None:
    specs = list(tensor_specs(model_config("qwen3-moe", "tiny", 48, 0, 1)))
    for shards in (1, 2, 5, len(specs), len(specs) + 4):
        parts = split(specs, shards)
        assert len(parts) == min(shards, len(specs)) and all(parts)
        assert [s for part in parts for s in part] == specs


def test_command_line_writes_both_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path), "--size", "tiny", "--train", "20", "--heldout", "5"]) == 0
    assert {p.name for p in (tmp_path / "model").iterdir()} >= {
        "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors",
    }  # fmt: skip
    assert len((tmp_path / "data" / "train.jsonl").read_text().splitlines()) == 20
    assert "20 training and 5 held-out" in capsys.readouterr().out
    assert main(["--model", str(tmp_path / "only"), "--size", "tiny"]) == 0
    assert not (tmp_path / "only" / "data").exists()
