"""The head of a multimodal model is its embedding where the whole model's class says so, as transformers reads it."""

from typing import Any

import pytest
from transformers import CONFIG_MAPPING

from lprl_api.model.layouts.planned import planned_shape
from lprl_api.model.layouts.ties import TIED, UNTIED
from lprl_api.model.weights import parameters

TEXT: dict[str, Any] = {
    "model_type": "qwen3", "hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "intermediate_size": 128,
    "num_hidden_layers": 2, "vocab_size": 1000,
}  # fmt: skip


def test_the_table_is_what_the_classes_take() -> None:
    taken = {name: CONFIG_MAPPING[name].__dataclass_fields__["tie_word_embeddings"].default for name in TIED | UNTIED}
    assert taken == dict.fromkeys(TIED, True) | dict.fromkeys(UNTIED, False)


@pytest.mark.parametrize(
    ("model_type", "said", "tied"),
    [("internvl", {}, True), ("internvl", {"tie_word_embeddings": False}, False), ("llava", {}, False), ("nobody_knows", {}, True)],
)
def test_the_outer_flag_counts_and_then_the_class_and_then_the_language_model(model_type: str, said: dict[str, bool], tied: bool) -> None:
    inner = {**TEXT, "tie_word_embeddings": not tied if model_type != "nobody_knows" else tied}
    shape = planned_shape({"model_type": model_type, "text_config": inner, **said})
    assert shape.tied_embeddings is tied
    head = parameters(shape.model_copy(update={"tied_embeddings": False})) - parameters(shape)
    assert head == (1000 * 64 if tied else 0)
