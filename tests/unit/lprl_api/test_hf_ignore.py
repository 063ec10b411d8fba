"""Rules of published quantization_configs: which linear modules of a model they leave in high precision."""

from fnmatch import fnmatchcase
from typing import Any

import pytest

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16
from lprl_api.model.hf_config import shape_from_config
from lprl_api.model.hf_quantization import parse_quantization_config

MODEL = {
    "model_type": "qwen3_moe", "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_hidden_layers": 12, "vocab_size": 64, "head_dim": 32, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 128,
}  # fmt: skip
ATTENTION = {f"model.layers.{n}.self_attn.{p}_proj" for n in range(12) for p in "qkvo"}
EXPERTS = {f"model.layers.{n}.mlp.experts.{e}.{p}_proj" for n in range(12) for e in range(4) for p in ("gate", "up", "down")}
FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
WEIGHTS = {
    8: {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True},
    4: {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True},
}


def compressed(bits: int, ignore: list[str], targets: tuple[str, ...] = ("Linear",)) -> dict[str, Any]:
    group = {"targets": list(targets), "weights": WEIGHTS[bits]}
    form = "float-quantized" if bits == 8 else "pack-quantized"
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": {"group_0": group}, "ignore": ignore}


def in_layer(number: int) -> set[str]:
    return {module for module in ATTENTION | EXPERTS if f"layers.{number}." in module}


def fp8(*names: str) -> dict[str, Any]:
    return FP8 | {"modules_to_not_convert": list(names)}


RULES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "choice-of-letters": (compressed(8, ["lm_head", "re:.*self_attn.[qkvo]_proj", "re:.*mlp.gate$"]), ATTENTION),
    "choice-of-words": (compressed(8, ["re:.*(q|k|v|o)_proj$"]), ATTENTION),
    "anchored": (compressed(8, [r"re:^model\.layers\.1\..*"]), in_layer(1)),
    "some-layers": (compressed(8, [r"re:.*layers\.(3|11)\..*"]), in_layer(3) | in_layer(11)),
    "numbers": (compressed(8, [r"re:.*layers\.\d+\.self_attn\..*_proj"]), ATTENTION),
    "of-a-tower": (compressed(8, ["re:vision_(tower|model).*", "re:.*mlp.gate$"]), set()),
    "of-int4": (compressed(4, ["lm_head", "re:.*layers.(0|1).self_attn.*"]), (in_layer(0) | in_layer(1)) & ATTENTION),
    "targets-of-fp8": (compressed(8, [], (r"re:.*mlp\.experts\..*",)), ATTENTION),
    "targets-of-int4": (compressed(4, [], ("re:.*self_attn.*",)), EXPERTS),
    "targets-and-ignored": (compressed(4, ["re:.*experts.*"], ("re:.*layers.0.*", "re:.*self_attn.*")), EXPERTS),
    "targets-of-an-engine": (compressed(8, [], ("QKVParallelLinear",)), set()),
    "last-name": (fp8("lm_head", "o_proj"), {module for module in ATTENTION if module.endswith("o_proj")}),
    "experts-as-a-whole": (fp8("mlp.experts"), EXPERTS),
    "router-and-norms": (fp8("gate", "mlp.gate", "norm", "embed_tokens", "lm_head", "model.layers.0.input_layernorm"), set()),
    "a-layer": (fp8("model.layers.1"), in_layer(1)),
}


@pytest.mark.parametrize(("section", "kept"), RULES.values(), ids=RULES)
def test_modules_that_a_published_rule_keeps_in_high_precision(section: dict[str, Any], kept: set[str]) -> None:
    fmt = parse_quantization_config(MODEL | {"quantization_config": section}, shape_from_config(MODEL))
    assert not isinstance(fmt, Bf16)
    assert {m for m in ATTENTION | EXPERTS if any(fnmatchcase(m, pattern) for pattern in fmt.exclude_modules)} == kept


def test_a_rule_that_is_no_regular_expression_is_refused() -> None:
    with pytest.raises(UserError, match=r"re:\*\.mlp: no regular expression"):
        parse_quantization_config(MODEL | {"quantization_config": compressed(8, ["re:*.mlp"])}, shape_from_config(MODEL))


@pytest.mark.parametrize("rule", [r"re:(\w+\.?)+!$", "re:((a|b*)c)*", "re:(?:a{2,}b)+", "re:(?:.*layers)*"])
def test_a_rule_that_repeats_repetitions_is_refused_before_it_is_matched(rule: str) -> None:
    with pytest.raises(UserError, match="a repetition inside a repetition") as caught:
        parse_quantization_config(MODEL | {"quantization_config": compressed(8, [rule])}, shape_from_config(MODEL))
    assert rule in caught.value.message


ODD = {
    "a-name": (FP8 | {"modules_to_not_convert": "lm_head"}, "modules_to_not_convert: got 'lm_head'; needs a list of names"),
    "a-number": (FP8 | {"ignored_layers": 3}, "ignored_layers: got '3'"),
    "list-of-numbers": (compressed(8, [1]), "ignore: got"),  # type: ignore[list-item]
    "targets": (compressed(8, [], (1,)), "group_0.targets: got"),  # type: ignore[arg-type]
    "format": (compressed(8, []) | {"format": []}, "group_0.weights: got|not supported"),
}


@pytest.mark.parametrize(("section", "match"), ODD.values(), ids=ODD)
def test_a_list_that_is_none_is_refused_by_name(section: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        parse_quantization_config(MODEL | {"quantization_config": section}, shape_from_config(MODEL))


def test_layer_types_that_are_no_list_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="layer_types: got '3'"):
        shape_from_config(MODEL | {"layer_types": 3})
