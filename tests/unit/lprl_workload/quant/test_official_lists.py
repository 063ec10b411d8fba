"""What is quantised is what the official FP8 and INT4 releases quantise, by the lists in their own config.json."""

import re
from collections.abc import Mapping

import pytest
from tests.unit.lprl_api.layouts.published import Published, published

from lprl_api.model.formats import Fp8Block, Int4Group, WeightFormat
from lprl_api.model.layouts.planned import planned_shape
from lprl_api.model.weight_rows import layers_of
from lprl_api.model.weights import layer_weights, selects
from lprl_api.spec.precision import Scope

GLM = {
    "mlp.gate": "3-78", "eh_proj": "78", "lm_head": "", "model.embed_tokens": "",
    "input_layernorm": "0-78", "post_attention_layernorm": "0-78", "self_attn.q_a_layernorm": "0-78", "self_attn.kv_a_layernorm": "0-78",
}  # fmt: skip
FP8, EXPERTS = Fp8Block(), Int4Group(scope=Scope.ROUTED_EXPERTS, group_size=32)
LISTS: dict[str, tuple[WeightFormat, Mapping[str, str]]] = {
    "zai-org/GLM-5-FP8": (FP8, GLM | {"self_attn.indexers_proj": "0-78"}),
    "zai-org/GLM-5.3-FP8": (FP8, GLM | {"self_attn.indexers_proj": "0-2,6-78:4"}),
    "MiniMaxAI/MiniMax-M2.5": (FP8, {"gate": "", "e_score_correction_bias": "", "lm_head": ""}),
    "Qwen/Qwen3-235B-A22B-FP8": (
        FP8,
        {"lm_head": "", "mlp.gate": "0-93", "input_layernorm": "0-93", "post_attention_layernorm": "0-93"},
    ),
    "Qwen/Qwen3-32B-FP8": (FP8, {}),
    "XiaomiMiMo/MiMo-V2-Flash": (FP8, {}),
    "deepseek-ai/DeepSeek-V3.2": (FP8, {}),
    "moonshotai/Kimi-K2.5": (
        EXPERTS,
        {"lm_head": "", "re:.*self_attn.*": "", "re:.*shared_experts.*": "", r"re:.*mlp\.(gate|up|gate_up|down)_proj.*": ""},
    ),
}
"""Release -> its format and its list: an entry of layers (`model.layers.N.ENTRY`) with them, others as they are."""
OTHERWISE_CALLED = {"self_attn.indexer.weights_proj": "self_attn.indexers_proj"}
UNSAID = re.compile(r"mlp\.gate|self_attn\.indexer\.weights_proj")
"""Not said by every list: routers are no quantised layers in any engine, and DeepSeek says nothing of its indexer."""


def of(name: str) -> Published:
    return next(one for one in published() if name in one.stored)


def listed(entries: Mapping[str, str], layer: int, module: str) -> bool:
    """Return whether a list keeps a module: by its whole name, its last words, what it lies in or a rule."""
    called = OTHERWISE_CALLED.get(module, module)
    whole = f"model.layers.{layer}.{called}"
    for entry, layers in entries.items():
        if layers:
            if entry == called and layer in layers_of(layers):
                return True
        elif entry.startswith("re:"):
            if re.match(entry[3:], whole):
                return True
        elif whole == entry or whole.endswith(f".{entry}"):
            return True
    return False


@pytest.mark.parametrize("name", LISTS)
def test_every_matrix_is_quantised_where_the_official_release_does(name: str) -> None:
    fmt, entries = LISTS[name]
    shape = planned_shape(of(name).config)
    compared = 0
    for layer in range(shape.layers):
        for weight in layer_weights(shape, layer):
            if min(weight.rows, weight.cols) == 1:
                continue
            module = weight.module.replace("*", "0")
            official, ours = not listed(entries, layer, module), selects(fmt, f"model.layers.{layer}.{module}", weight)
            assert ours == official or (not ours and UNSAID.fullmatch(module)), (layer, module, official)
            compared += 1
    assert compared > 5 * shape.layers
