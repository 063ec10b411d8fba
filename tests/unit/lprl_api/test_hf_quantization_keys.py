"""Keys of a quantization_config that change what stored numbers mean: applied or refused by name, never passed over."""

import copy
from typing import Any

import pytest

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.model.formats.fp8_block import CompressedFp8Block
from lprl_api.model.hf_quantization import parse_quantization_config

INT4 = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True, "dynamic": False},
            "input_activations": None,
        }
    },
    "ignore": ["lm_head"],
}
FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
ALL = Int4Group(scope="all-linear")  # type: ignore[arg-type]


def weights(**changes: object) -> dict[str, Any]:
    section = copy.deepcopy(INT4)
    section["config_groups"]["group_0"]["weights"] |= changes  # type: ignore[index]
    return section


def group(**changes: object) -> dict[str, Any]:
    section = copy.deepcopy(INT4)
    section["config_groups"]["group_0"] |= changes  # type: ignore[index]
    return section


def with_static_activations() -> dict[str, Any]:
    section = fp8_groups("tensor")
    section["config_groups"]["g"]["input_activations"] = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False}
    return section


def fp8_groups(strategy: str | None, **more: object) -> dict[str, Any]:
    scheme = {"num_bits": 8, "type": "float", "strategy": strategy, "symmetric": True}
    return INT4 | {"format": "float-quantized", "config_groups": {"g": {"targets": ["Linear"], "weights": scheme | more}}}


TWO = {"a": INT4["config_groups"]["group_0"], "b": weights(num_bits=8)["config_groups"]["group_0"]}  # type: ignore[index]
SAME = {"a": INT4["config_groups"]["group_0"], "b": group(targets=["re:.*experts.*"])["config_groups"]["group_0"]}  # type: ignore[index]
ACTIVATIONS = {"a": INT4["config_groups"]["group_0"], "b": {"targets": ["LlamaAttention"], "weights": None}}  # type: ignore[index]

OTHERS = ("gptq", "awq", "modelopt", "mxfp4", "bitsandbytes", "fbgemm_fp8", "quark", "auto-round", "torchao", "compressed_tensors")
APPLIED = {
    "actorder-weight": (weights(actorder="weight"), ALL),
    "actorder-static": (weights(actorder="STATIC"), ALL),
    "actorder-none": (weights(actorder=None), ALL),
    "actorder-false": (weights(actorder=False), ALL),
    "observer": (weights(observer="mse", observer_kwargs={"norm": 2.4}), ALL),
    "scale-dtype": (weights(scale_dtype="torch.float16", zp_dtype="torch.int8"), ALL),
    "strategy-from-group-size": (weights(strategy=None), ALL),
    "strategy-upper-case": (weights(strategy="GROUP", type="INT"), ALL),
    "weight-only": (fp8_groups("tensor") | {"kv_cache_scheme": None}, Fp8Tensor(activations="none")),
    "static-activations": (with_static_activations(), Fp8Tensor()),
    "int4-weights-fp8-activations": (group(input_activations={"num_bits": 8, "type": "float", "dynamic": True}), ALL),
    "kv-cache": (INT4 | {"kv_cache_scheme": {"num_bits": 8, "type": "float"}}, ALL),
    "dense-sparsity": (INT4 | {"sparsity_config": {"format": "dense"}}, ALL),
    "no-transforms": (INT4 | {"transform_config": {"config_groups": {}}}, ALL),
    "groups-alike": (INT4 | {"config_groups": SAME}, ALL),
    "group-about-activations": (INT4 | {"config_groups": ACTIVATIONS}, ALL),
    "format-of-the-group": (group(format="pack-quantized") | {"format": "mixed-precision"}, ALL),
    "frozen": (INT4 | {"quantization_status": "frozen", "version": "0.9", "global_compression_ratio": 3.1}, ALL),
    "channel-from-group-size": (fp8_groups(None, group_size=-1), Fp8Channel(activations="none")),
    "blocks": (fp8_groups("block", block_structure=[128, 128]), CompressedFp8Block(activations="none")),
    "naive": (fp8_groups("channel") | {"format": "naive-quantized"}, Fp8Channel(activations="none")),
    "fp8-static": (FP8 | {"activation_scheme": "static", "kv_cache_scheme": "static"}, Fp8Block()),
    "fp8-float-scales": (FP8 | {"scale_fmt": "float", "expert_dtype": "fp8", "dequantize": True}, Fp8Block()),
    "fp8-ue8m0": (FP8 | {"scale_fmt": "ue8m0"}, Fp8Block(scale_format="ue8m0")),
    "fp8-embedding-too": (FP8 | {"modules_to_convert": ["model.embed_tokens"]}, Fp8Block()),
    "experts-targeted": (group(targets=[r"re:.*mlp\.experts\..*"]), Int4Group(scope="routed-experts")),  # type: ignore[arg-type]
}
BLOCKS = {f"group_{i}": fp8_groups("block", block_structure=size)["config_groups"]["g"] for i, size in enumerate(([128, 128], [64, 64]))}
REFUSED = {
    "actorder-group": (weights(actorder="group"), r"config_groups.group_0.weights.actorder: got 'group'; needs weight, static or none"),
    "actorder-dynamic": (weights(actorder="dynamic"), "actorder: got 'dynamic'"),
    "actorder-true": (weights(actorder=True), "actorder: got 'True'"),
    "zero-points": (weights(symmetric=False), "asymmetric"),
    "dynamic-weights": (weights(dynamic=True), "dynamic: got 'True'"),
    "block-structure": (weights(block_structure=[128, 128]), "block_structure: got .* with strategy block"),
    "block-of-one-number": (fp8_groups("block", block_structure=[128]), "block_structure: got .* needs two positive numbers"),
    "block-unsaid": (fp8_groups("block"), "strategy 'block'"),
    "blocks-of-two-sizes": (fp8_groups("block", block_structure=[128, 128]) | {"config_groups": BLOCKS}, "2 weight schemes"),
    "tensor-group": (weights(strategy="tensor_group"), "strategy 'tensor_group'"),
    "channel-int4": (weights(strategy="channel", group_size=None), "strategy 'channel'"),
    "nvfp4": (weights(type="float", num_bits=4, group_size=16, strategy="tensor_group"), "4 bits, strategy 'tensor_group'"),
    "default-bits": (weights(num_bits=8), "8 bits"),
    "group-64-of-fp8": (fp8_groups("group", group_size=64), "strategy 'group'"),
    "unknown-weight-key": (weights(rotation="hadamard"), "weights.rotation: got 'hadamard'; needs to be left out"),
    "unknown-group-key": (group(transform="r4"), "group_0.transform"),
    "unknown-section-key": (INT4 | {"is_marlin_format": True}, "quantization_config.is_marlin_format"),
    "pack-factor": (INT4 | {"pack_factor": 8}, "pack_factor"),
    "mixed-linear-fp8": (INT4 | {"linear_fp8_config": FP8}, "linear_fp8_config"),
    "sparse": (INT4 | {"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparsity_config"),
    "sparse-experts": (INT4 | {"moe_sparsity_config": {"a": 1}}, "moe_sparsity_config"),
    "transforms": (INT4 | {"transform_config": {"config_groups": {"u": {"type": "hadamard"}}}}, "rotated weights"),
    "groups-of-different-bits": (INT4 | {"config_groups": TWO}, "2 weight schemes"),
    "preset-by-name": (INT4 | {"config_groups": {"W4A16": ["Linear"]}}, "config_groups.W4A16: got"),
    "marlin-24": (INT4 | {"format": "marlin-24"}, "format 'marlin-24'"),
    "fp8-in-another-file-format": (fp8_groups("channel") | {"format": "mxfp8-quantized"}, "format 'mxfp8-quantized'"),
    "mixed-precision-unsaid": (INT4 | {"format": "mixed-precision"}, "format 'mixed-precision'"),
    "e5m2": (FP8 | {"fmt": "e5m2"}, "quantization_config.fmt: got 'e5m2'; needs e4m3"),
    "fp8-scale-format": (FP8 | {"scale_fmt": "e4m3"}, "scale_fmt"),
    "fp4-experts": (FP8 | {"expert_dtype": "fp4"}, "expert_dtype: got 'fp4'"),
    "fp8-unknown": (FP8 | {"store_dtype": "mxfp4"}, "store_dtype"),
    "fp8-activation-scheme": (FP8 | {"activation_scheme": "block"}, "activation_scheme"),
    **{method: ({"quant_method": method}, f"quant_method: '{method}'") for method in OTHERS},
}


@pytest.mark.parametrize(("section", "want"), APPLIED.values(), ids=APPLIED)
def test_a_key_that_says_nothing_of_stored_weights_or_is_applied_is_taken(section: dict[str, Any], want: WeightFormat) -> None:
    assert parse_quantization_config({"quantization_config": section}) == want


@pytest.mark.parametrize(("section", "match"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("place", ["root", "text_config"])
def test_a_key_that_changes_stored_numbers_is_refused_by_name(section: dict[str, Any], match: str, place: str) -> None:
    config = {"quantization_config": section}
    with pytest.raises(UserError, match=match):
        parse_quantization_config(config if place == "root" else {"text_config": config})


def test_two_sections_that_differ_are_refused() -> None:
    with pytest.raises(UserError, match=r"text_config\.quantization_config say different things"):
        parse_quantization_config({"quantization_config": FP8, "text_config": {"quantization_config": INT4}})
    both = {"quantization_config": FP8, "text_config": {"quantization_config": FP8}}
    assert parse_quantization_config(both) == Fp8Block()
    assert parse_quantization_config({}) == Bf16()
