"""Checkpoint names and layout from a model's class: numbered parameters through transformers' own conversion, and back."""

from typing import Any

import pytest
import torch
from tests.zoo.tiny import tiny_config, tiny_model

from lprl_workload.folder.class_layout import ClassLayout, layout_of
from lprl_workload.folder.class_model import NoClass
from lprl_workload.folder.numbered import View


def layout(model_type: str, **changes: Any) -> ClassLayout:
    return layout_of(tiny_config(model_type, changes).to_dict())


@pytest.mark.parametrize("model_type", ["mixtral", "glm4_moe", "gpt_oss", "minimax_m2", "qwen3_5_moe_text", "phimoe"])
def test_every_checkpoint_tensor_is_the_view_of_a_parameter_that_transformers_writes(model_type: str, tmp_path: Any) -> None:
    from safetensors.torch import load_file

    model = tiny_model(model_type, {})
    model.save_pretrained(tmp_path)
    stored = {name: tensor for file in tmp_path.glob("*.safetensors") for name, tensor in load_file(file).items()}
    found = layout_of(model.config.to_dict())
    state = model.state_dict()
    assert set(stored) == set(found.views) and not found.unclear
    for name, view in found.views.items():
        inside = state[view.parameter][view.index]
        kept = [axis for axis, i in enumerate(view.index) if isinstance(i, slice)]
        assert torch.equal(inside.permute([kept.index(axis) for axis in view.axes]), stored[name]), name


def test_sizes_that_are_shrunk_to_be_numbered_give_the_same_places() -> None:
    config = tiny_config("mixtral", {}).to_dict()
    config |= {"hidden_size": 4096, "intermediate_size": 14336, "head_dim": 128, "num_attention_heads": 32, "vocab_size": 32000}
    found = layout_of(config)
    assert found.views["model.layers.1.block_sparse_moe.experts.3.w3.weight"] == View(
        "model.layers.1.mlp.experts.gate_up_proj", (14336, 4096), (1, 2), (3, slice(14336, 28672, 1), slice(0, 4096, 1))
    )
    assert found.views["model.layers.0.self_attn.k_proj.weight"].shape == (256, 4096)
    assert found.experts == 4 and found.layers == 2 and found.embedding == "model.embed_tokens.weight"


def test_orientation_of_experts_is_the_classes_and_not_the_shapes() -> None:
    square = layout("gpt_oss", hidden_size=256, intermediate_size=256)
    assert square.parameters["model.layers.0.mlp.experts.down_proj"].shape == (4, 256, 256)
    assert square.parameters["model.layers.0.mlp.experts.down_proj"].transposed is True
    same = layout("mixtral", hidden_size=256, intermediate_size=256)
    assert same.parameters["model.layers.0.mlp.experts.down_proj"].transposed is False
    # A class that does not say: one more module of twice the hidden size tells.
    said_nothing = layout("llama4_text", hidden_size=256, intermediate_size=256)
    assert said_nothing.parameters["model.layers.0.feed_forward.experts.down_proj"].transposed is True


def test_code_of_a_folder_is_not_looked_at() -> None:
    config = tiny_config("mistral", {}).to_dict() | {"auto_map": {"AutoModelForCausalLM": "evil.Model"}, "architectures": ["Evil"]}
    assert layout_of(config).model_class == "MistralForCausalLM"


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"model_type": "no_such_model"}, "transformers has no class of model_type 'no_such_model'"),
        ({"model_type": "mistral", "hidden_size": "wide"}, "cannot be read by transformers"),
        ({"model_type": "vit"}, "no language model of model_type 'vit'"),
    ],
)
def test_what_is_no_class_says_why(config: dict[str, Any], why: str) -> None:
    with pytest.raises(NoClass, match=why):
        layout_of(config)
