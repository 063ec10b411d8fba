"""Counts from config.json against transformers' classes, built without memory: published models cut short, and families' defaults."""

import copy
import json
from typing import Any

import pytest
import torch
from tests.unit.lprl_api.layouts.published import Published, published
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING as CAUSAL
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING as VISION

from lprl_api.model.hf_config import FAMILIES
from lprl_api.model.layouts.decoders import DECODERS
from lprl_api.model.layouts.planned import BUILDERS, planned_shape
from lprl_api.model.weights import whole_parameters

LAYERS = 8
"""Enough for every pattern of layers."""
WITHOUT_A_CLASS = ("minimax_m3", "step3p7")
"""Published with the language model's keys outside, which no class of transformers reads."""
KNOWN = [
    one
    for one in published()
    if one.parameters is not None and ("text_config" in one.config or one.config["model_type"] not in WITHOUT_A_CLASS)
]
FLAGS = {"attention_bias": True, "mlp_bias": True, "use_bias": True, "attention_out_bias": True, "use_qk_norm": True}
SIZES: dict[str, dict[str, Any]] = {
    "ministral": {"head_dim": 128},
    "hunyuan_v1_dense": {"head_dim": 128},
    "nemotron": {"head_dim": 128, "num_key_value_heads": 8},
    "dots1": {"n_routed_experts": 128, "n_shared_experts": 2, "num_experts_per_tok": 6},
    "deepseek_v2": {"num_experts_per_tok": 6, "n_shared_experts": 2},
    "gemma4_text": {"global_head_dim": 128, "attention_k_eq_v": True, "num_global_key_value_heads": 2},
}
"""What a class has no default for, or says again in other words when it is saved."""

OUTER = {
    **{
        f"{name}_text": name
        for name in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "glm4v", "glm4v_moe", "gemma3")
    },
    "step3p5": "step3p7",
    "mistral": "mistral3",
}
"""Language models whose class exists as a part of another only, or with a tower besides."""

FAMILY_NAMES = [name for name in (*FAMILIES, *DECODERS, *BUILDERS) if name not in (*WITHOUT_A_CLASS, "kimi_k2")]


def weights(config: PreTrainedConfig) -> int:
    """Return the floating-point elements of a class's checkpoint, shared ones once."""
    found = VISION[type(config)] if type(config) in VISION else CAUSAL[type(config)]
    with torch.device("meta"):
        model = found._from_config(config)
    model.tie_weights()
    kept = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values() if tensor.is_floating_point()}
    return sum(tensor.numel() for tensor in kept.values())


def shortened(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config of few layers, in the language model and in a tower."""
    found = copy.deepcopy(config)
    text = found.get("text_config", found)
    layers = len(text["layers_block_type"]) if "layers_block_type" in text else text["num_hidden_layers"]
    cut = min(LAYERS, layers)
    if "num_hidden_layers" in text:
        text["num_hidden_layers"] = cut
    for place in (text, text.get("sparse_attention_config", {})):
        place.update({key: value[:cut] for key, value in place.items() if isinstance(value, list | str) and len(value) >= layers > 5})
    vision = found.get("vision_config") or {}
    vision.update({key: 2 for key in ("depth", "num_hidden_layers") if key in vision})
    return found


def of_class(config: dict[str, Any]) -> PreTrainedConfig:
    """Return transformers' own configuration."""
    own = copy.deepcopy(config)
    model_type = own.pop("model_type")
    return AutoConfig.for_model("deepseek_v3" if model_type == "kimi_k2" else model_type, **own)


@pytest.mark.parametrize("one", KNOWN, ids=lambda one: one.name)
def test_a_published_model_cut_short_has_the_weights_of_its_class(one: Published) -> None:
    config = shortened(one.config)
    assert whole_parameters(planned_shape(config)) == weights(of_class(config))


@pytest.mark.parametrize("flags", [{}, FLAGS], ids=["plain", "with biases"])
@pytest.mark.parametrize("model_type", [name for name in FAMILY_NAMES])
def test_a_family_has_the_weights_of_its_class_where_config_json_says_little(model_type: str, flags: dict[str, bool]) -> None:
    """Both the whole configuration and the one that leaves out what the class takes anyway, as it is saved."""
    outer = OUTER.get(model_type)
    known = AutoConfig.for_model(outer or model_type).to_dict()
    said = {key: value for key, value in flags.items() if key in (known["text_config"] if outer else known)}
    sizes = {**SIZES.get(model_type, {}), **said, "num_hidden_layers": LAYERS}
    config = AutoConfig.for_model(outer, text_config=sizes) if outer else AutoConfig.for_model(model_type, **sizes)
    counted = weights(config)
    for document in (config.to_dict(), config.to_diff_dict()):
        saved = json.loads(json.dumps({**document, "model_type": outer or model_type}, default=str))
        assert whole_parameters(planned_shape(saved)) == counted, document
