"""The `quantization_config` of a Hugging Face config.json -> WeightFormat: pure, and every refusal names the key.

The other direction, and which weights are quantised at all, is the converter's (lprl_workload/quant/).
"""

import re
from collections.abc import Iterable
from typing import Any

from lprl_api.errors import UserError
from lprl_api.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.module_kinds import kind_of
from lprl_api.precision import Scope

Json = dict[str, Any]
KEYS = ("quantization_config", "compression_config")
_EXPERT = "model.layers.0.mlp.experts.0.gate_proj"
_ATTENTION = ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.q_a_proj", "model.layers.0.self_attn.o_proj")


def find_quantization_config(config: Json) -> Json | None:
    """Return the quantisation section of a config.json, also of a multimodal model's text_config; None for high precision.

    Raises UserError for one that is no object.
    """
    places = [config, config["text_config"]] if isinstance(config.get("text_config"), dict) else [config]
    found = next(((key, place[key]) for place in places for key in KEYS if place.get(key) is not None), None)
    if found is None:
        return None
    if not isinstance(found[1], dict):
        raise UserError(f"config.json: {found[0]}: got {str(found[1])[:80]!r}; needs an object", "restore the model's own config.json")
    return found[1]


def strip_quantization(config: Json) -> Json:
    """Return `config` without any quantisation section (a copy)."""
    kept = {key: value for key, value in config.items() if key not in KEYS}
    return {key: strip_quantization(value) if key == "text_config" and isinstance(value, dict) else value for key, value in kept.items()}


def parse_quantization_config(config: Json) -> WeightFormat:
    """Return the format of a checkpoint from its config.json (ours or foreign); Bf16 when it has no quantisation section.

    Raises UserError naming the field for what no WeightFormat says: other methods, asymmetric or non-4-bit integers, several schemes.
    """
    section = find_quantization_config(config)
    if section is None:
        return Bf16()
    method = section.get("quant_method")
    if method == "fp8":
        return _parse_fp8(section)
    if method == "compressed-tensors":
        return _parse_compressed(section)
    raise UserError(f"quantization_config.quant_method: {method!r} is not supported; fits fp8 or compressed-tensors")


def _parse_fp8(section: Json) -> WeightFormat:
    excluded = _exclusions(section.get("modules_to_not_convert") or section.get("ignored_layers") or (), routed_only=False)
    size = section.get("weight_block_size")
    if size is None:
        return Fp8Tensor(exclude_modules=excluded)
    if not (isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)):
        raise UserError(f"quantization_config.weight_block_size: {size!r}; needs two positive numbers")
    ue8m0 = section.get("scale_fmt") == "ue8m0"
    return Fp8Block(block_size=(size[0], size[1]), scale_format="ue8m0" if ue8m0 else "float32", exclude_modules=excluded)


def _parse_compressed(section: Json) -> WeightFormat:
    groups = section.get("config_groups") or {}
    schemes = [group.get("weights") for group in groups.values() if isinstance(group, dict)]
    if len(schemes) != 1 or not isinstance(schemes[0], dict):
        raise UserError(f"quantization_config.config_groups: {len(schemes)} weight schemes; exactly one is supported")
    weights = schemes[0]
    found = (weights.get("type"), weights.get("num_bits"), weights.get("strategy"))
    if not weights.get("symmetric", True):
        raise UserError("quantization_config.config_groups: asymmetric weights (zero points) are not supported")
    ignored = section.get("ignore") or ()
    match found:
        case ("float", 8, "channel"):
            return Fp8Channel(exclude_modules=_exclusions(ignored, routed_only=False))
        case ("float", 8, "tensor"):
            return Fp8Tensor(exclude_modules=_exclusions(ignored, routed_only=False))
        case ("int", 4, "group") if weights.get("group_size") in (32, 64, 128) and section.get("format") == "pack-quantized":
            routed = all(any(_matches(rule, name) for rule in ignored) for name in _ATTENTION[2:])
            scope = Scope.ROUTED_EXPERTS if routed else Scope.ALL_LINEAR
            return Int4Group(group_size=weights["group_size"], scope=scope, exclude_modules=_exclusions(ignored, routed_only=routed))
    raise UserError(
        f"quantization_config.config_groups: weights of type {found[0]!r}, {found[1]} bits, strategy {found[2]!r}, "
        f"group_size {weights.get('group_size')}, format {section.get('format')!r} are not supported; "
        "fits float 8 bits channel or tensor, or int 4 bits group 32/64/128 pack-quantized"
    )


def _matches(rule: str, module: str) -> bool:
    if rule.startswith("re:"):
        return re.match(rule[3:], module) is not None
    return module == rule or module.endswith("." + rule)


def _exclusions(ignored: Iterable[str], *, routed_only: bool) -> tuple[str, ...]:
    """Return the glob patterns that `ignored` names beyond what no format ever quantises."""
    patterns = []
    for rule in ignored:
        if rule.startswith("re:"):
            if routed_only and not _matches(rule, _EXPERT):
                continue
            patterns.append(_glob(rule[3:]))
            continue
        kind = kind_of(f"{rule}.weight")
        if kind is not None and (kind == "routed" or not routed_only):
            patterns.append(rule)
    return tuple(dict.fromkeys(patterns))


def _glob(regex: str) -> str:
    """Translate a regular expression of literals and `.*` into a glob; raises UserError for anything else."""
    glob = regex.removesuffix("$").replace(r"\.", "\0").replace(".*", "*").replace("\0", ".")
    if re.search(r"[^\w.*-]", glob):
        raise UserError(f"quantization_config: ignore pattern re:{regex} is not supported", "list the modules by name")
    return glob if regex.endswith("$") or glob.endswith("*") else f"{glob}*"
