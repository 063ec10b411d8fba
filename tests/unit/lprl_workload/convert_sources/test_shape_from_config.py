"""config.json -> ModelShape: every family, and refusals that name the key."""

from typing import Any

import pytest

from lprl_api.errors import UserError
from lprl_api.model.hf_config import shape_from_config
from lprl_api.model.model_shape import Mla, Moe
from lprl_fixtures.architectures import ARCHITECTURES, Architecture, model_config


def config(architecture: Architecture = "qwen3", **changes: Any) -> dict[str, Any]:
    return model_config(architecture, "tiny", 100, 0, 1) | changes


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_fixture_has_a_shape(architecture: Architecture) -> None:
    shape = shape_from_config(config(architecture))
    assert (shape.layers, shape.hidden, shape.vocab, shape.dtype) == (2, 64, 100, "bfloat16")
    assert (shape.moe is not None) == (architecture in ("qwen3-moe", "deepseek-v3", "moonlight"))
    assert (shape.mla is not None) == (architecture in ("deepseek-v3", "moonlight"))
    assert shape.qk_norm == architecture.startswith("qwen3") and shape.attention_bias == (architecture == "qwen2")


def test_kimi_keeps_its_language_model_in_text_config() -> None:
    text = config("deepseek-v3", model_type="kimi_k2", dtype="bfloat16", architectures=["KimiK2ForCausalLM"])
    shape = shape_from_config({"architectures": ["KimiK25ForConditionalGeneration"], "model_type": "kimi_k25", "text_config": text})
    assert shape.family == "deepseek-v3" and shape.architecture == "DeepseekV3ForCausalLM"
    assert shape.mla == Mla(q_lora_rank=32, kv_lora_rank=32, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32)
    assert shape.moe == Moe(experts=4, experts_per_token=2, expert_ffn=96, shared_expert_ffn=96, dense_layers=1)


@pytest.mark.parametrize(
    ("changes", "field", "want"),
    [
        pytest.param({"tie_word_embeddings": True}, "tied_embeddings", True, id="tied"),
        pytest.param({"torch_dtype": None, "dtype": "float32"}, "dtype", "float32", id="new-dtype-key"),
        pytest.param({"torch_dtype": "torch.float16"}, "dtype", "float16", id="dtype-with-prefix"),
        pytest.param({"num_key_value_heads": None}, "kv_heads", 2, id="heads-without-groups"),
        pytest.param({"head_dim": None}, "head_dim", 128, id="qwen3-default-head-dim"),
        pytest.param({"max_position_embeddings": None}, "max_positions", 32768, id="no-positions"),
    ],
)
def test_optional_keys(changes: dict[str, Any], field: str, want: object) -> None:
    assert getattr(shape_from_config(config(**changes)), field) == want


@pytest.mark.parametrize(
    ("architecture", "changes", "match"),
    [
        pytest.param("qwen3", {"model_type": "mamba"}, r"model_type: got 'mamba'; needs one of llama, qwen2", id="unknown-family"),
        pytest.param("qwen3", {"model_type": None, "architectures": ["X"]}, r"model_type", id="no-family"),
        pytest.param("qwen3", {"hidden_size": None}, r"hidden_size: got 'None'; needs a whole number", id="null-dimension"),
        pytest.param("qwen3", {"hidden_size": "64"}, r"hidden_size: got '64'; needs a whole number", id="text-dimension"),
        pytest.param("qwen3", {"hidden_size": True}, r"hidden_size", id="true-is-no-dimension"),
        pytest.param("qwen3", {"num_hidden_layers": 0}, r"num_hidden_layers: got '0'", id="no-layers"),
        pytest.param("qwen3", {"vocab_size": 1 << 40}, r"vocab_size", id="absurd-vocabulary"),
        pytest.param("qwen3", {"num_key_value_heads": 3}, r"num_key_value_heads: got '3'; needs a divisor", id="kv-heads"),
        pytest.param("llama", {"head_dim": None, "hidden_size": 65}, r"head_dim", id="no-head-dim"),
        pytest.param("qwen3", {"torch_dtype": "int8"}, r"torch_dtype: got 'int8'; needs one of bfloat16", id="dtype"),
        pytest.param("qwen3", {"tie_word_embeddings": "yes"}, r"tie_word_embeddings: got 'yes'; needs true or false", id="flag"),
        pytest.param("qwen3-moe", {"decoder_sparse_step": 2}, r"decoder_sparse_step", id="sparse-step"),
        pytest.param("qwen3-moe", {"mlp_only_layers": [0]}, r"mlp_only_layers", id="dense-layers-between"),
        pytest.param("qwen3-moe", {"num_experts_per_tok": 9}, r"num_experts_per_tok: got '9'; needs at most the 4 experts", id="top-k"),
        pytest.param("deepseek-v3", {"kv_lora_rank": None}, r"kv_lora_rank", id="no-latent"),
        pytest.param("deepseek-v3", {"moe_layer_freq": 2}, r"moe_layer_freq", id="layer-frequency"),
        pytest.param("qwen3", {"text_config": []}, r"text_config: got '\[\]'; needs an object", id="text-config"),
        pytest.param("qwen3", {"text_config": {"model_type": "qwen3"}}, r"text_config\.num_attention_heads: missing", id="nested-key"),
    ],
)
def test_refusals_name_the_key(architecture: Architecture, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        shape_from_config(config(architecture, **changes))
