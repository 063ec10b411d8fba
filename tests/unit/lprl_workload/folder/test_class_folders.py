"""Folders of families without a table hold their class's tensors and no others: the verdicts that the tables give of theirs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.zoo.families import CHEAP, Case
from tests.zoo.tiny import save, tiny_model

from lprl_api.errors import UserError
from lprl_workload.folder.model import read_contents

Q = "model.layers.0.self_attn.q_proj.weight"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def saved(model_type: str, folder: Path, **changes: Any) -> Path:
    return save(tiny_model(model_type, changes), folder)


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("mistral", tmp_path_factory.mktemp("classes") / "mistral", tie_word_embeddings=False)


def changed(source: Path, folder: Path, tensors: dict[str, Any], **config: Any) -> Path:
    folder.mkdir()
    kept = {name: t.contiguous() for name, t in (load_file(source / "model.safetensors") | tensors).items() if t is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(json.loads((source / "config.json").read_text()) | config))
    return folder


def test_a_tied_head_is_left_out_where_it_is_the_embedding_and_refused_where_not(mistral: Path, tmp_path: Path) -> None:
    embedding = load_file(mistral / "model.safetensors")[EMBEDDING]
    equal = read_contents(changed(mistral, tmp_path / "equal", {HEAD: embedding.clone()}, tie_word_embeddings=True))
    assert HEAD not in equal.tensors and "ties the head to the embedding" in equal.notes[-1]
    other = embedding.clone()
    other[7] += 1
    with pytest.raises(UserError, match=rf"tensor {HEAD}: .*differs from it in row 7"):
        read_contents(changed(mistral, tmp_path / "other", {HEAD: other}, tie_word_embeddings=True))


WRONG = {
    "left-over-scale": ({Q + "_scale_inv": torch.ones(1, 1)}, rf"tensor {Q}_scale_inv is not in a MistralForCausalLM"),
    "left-over-scale-of-int4": ({Q + "_scale": torch.ones(1, 1)}, rf"tensor {Q}_scale is not in a MistralForCausalLM"),
    "int8": ({Q: torch.zeros(128, 128, dtype=torch.int8)}, rf"tensor {Q}: dtype I8; needs BF16, F16, F32"),
    "int32-norm": ({"model.norm.weight": torch.ones(128, dtype=torch.int32)}, r"tensor model.norm.weight: dtype I32; needs BF16"),
    "value-head": ({"v_head.weight": torch.ones(1, 128)}, r"tensor v_head.weight is not in a MistralForCausalLM"),
    "adapter": ({"base_model.model.x.lora_A.weight": torch.ones(4, 128)}, r"tensor base_model.* is not in a MistralForCausalLM"),
    "no-head": ({HEAD: None}, rf"1 tensor missing: {HEAD}"),
    "head-of-another-shape": ({HEAD: torch.ones(2, 128)}, rf"tensor {HEAD}: shape \[2, 128\]"),
}


@pytest.mark.parametrize(("tensors", "message"), WRONG.values(), ids=WRONG)
def test_what_does_not_belong_to_the_class_is_refused_by_name(mistral: Path, tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    read_contents(mistral)
    with pytest.raises(UserError, match=message):
        read_contents(changed(mistral, tmp_path / "odd", tensors))


def test_experts_one_by_one_and_fused_are_two_forms_of_one_tensor(tmp_path: Path) -> None:
    whole = saved("qwen2_moe", tmp_path / "moe")
    fused = torch.zeros(4, 256, 128, dtype=torch.bfloat16)
    layer = next(name for name in load_file(whole / "model.safetensors") if name.endswith("mlp.experts.0.gate_proj.weight"))
    name = layer.replace("0.gate_proj.weight", "gate_up_proj")
    with pytest.raises(UserError, match=r"is stored twice, in two forms"):
        read_contents(changed(whole, tmp_path / "both", {name: fused}))


@pytest.mark.parametrize("case", [*CHEAP, Case("gpt_neox", "GPT-NeoX"), Case("phi", "Phi-2")], ids=lambda case: case.model_type)
def test_every_tensor_that_is_left_out_is_missed_by_name(case: Case, tmp_path: Path) -> None:
    source = save(tiny_model(case.model_type, case.changes), tmp_path / "whole")
    tensors = load_file(source / "model.safetensors")
    read_contents(source)
    for place, name in enumerate(tensors):
        folder = changed(source, tmp_path / str(place), {name: None})
        with pytest.raises(UserError) as caught:
            read_contents(folder)
        assert name in caught.value.message or name.endswith("embed_tokens.weight") or name.endswith("embed_in.weight"), name
        (folder / "model.safetensors").unlink()
