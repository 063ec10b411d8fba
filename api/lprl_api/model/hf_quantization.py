"""The `quantization_config` of a Hugging Face config.json -> WeightFormat: pure, and every refusal names the key.

The other direction, and which weights are quantised at all, is the converter's (lprl_workload/quant/).
"""

from collections.abc import Sequence
from typing import Any, Literal

from lprl_api.errors import UserError
from lprl_api.model import hf_ignore as ignore_rules
from lprl_api.model import hf_quantization_keys as keys
from lprl_api.model.formats import READ, Activations, Bf16, WeightFormat
from lprl_api.model.formats.base import WEIGHT_ONLY, Stored
from lprl_api.model.hf_config import shape_from_config
from lprl_api.model.hf_quantization_keys import check_keys
from lprl_api.model.model_shape import ModelShape

Json = dict[str, Any]
KEYS = ("quantization_config", "compression_config")
SECTION = "quantization_config"
READABLE = "use the model's BF16, FP8 or compressed-tensors INT4 version"
LISTS = ("ignore", "modules_to_not_convert", "ignored_layers")
_RESTORE = "restore the model's own config.json"


def find_quantization_config(config: Json) -> Json | None:
    """Return the quantisation section of a config.json, also of a multimodal model's text_config; None for high precision.

    Raises UserError for one that is no object, and for two that differ.
    """
    places = [("", config)]
    if isinstance(config.get("text_config"), dict):
        places.append(("text_config.", config["text_config"]))
    found = [(f"{prefix}{key}", place[key]) for prefix, place in places for key in KEYS if place.get(key) is not None]
    for name, section in found:
        if not isinstance(section, dict):
            raise UserError(f"config.json: {name}: got {str(section)[:80]!r}; needs an object", "restore the model's own config.json")
        if section != found[0][1]:
            what = f"config.json: {found[0][0]} and {name} say different things of the same weights"
            raise UserError(what, "keep the section that was published with these weights")
    return found[0][1] if found else None


def strip_quantization(config: Json) -> Json:
    """Return `config` without any quantisation section (a copy)."""
    kept = {key: value for key, value in config.items() if key not in KEYS}
    return {key: strip_quantization(value) if key == "text_config" and isinstance(value, dict) else value for key, value in kept.items()}


def is_mxfp4(config: Json) -> bool:
    """Return whether a config.json says that experts are MXFP4. Raises UserError for a key of the section that is not known."""
    section = find_quantization_config(config)
    if section is None or section.get("quant_method") != "mxfp4":
        return False
    check_keys(section, keys.MXFP4, SECTION)
    return True


def without_lists(config: Json) -> Json:
    """Return `config` (a copy) with quantisation sections that list no modules: what is quantised is then seen in the tensors alone."""
    kept = dict(config)
    for key in KEYS:
        if isinstance(kept.get(key), dict):
            kept[key] = {name: value for name, value in kept[key].items() if name not in LISTS}
    if isinstance(kept.get("text_config"), dict):
        kept["text_config"] = without_lists(kept["text_config"])
    return kept


def parse_quantization_config(config: Json, shape: ModelShape | None = None) -> WeightFormat:
    """Return the format of a checkpoint from its config.json (ours or foreign); Bf16 when it has no quantisation section.

    `shape` (default: what config.json says) tells which modules the section's rules are asked about.
    Raises UserError naming the field for what no WeightFormat says: other methods, asymmetric or non-4-bit integers, several schemes,
    and every key that would change the meaning of stored weights and is not applied.
    """
    section = find_quantization_config(config)
    if section is None:
        return Bf16()
    method = section.get("quant_method")
    if method == "fp8":
        _check_experts(config)
        return _parse_fp8(section)
    if method == "compressed-tensors":
        return _parse_compressed(section, shape or _shape(config))
    made_by = section.get("producer")
    modelopt = method == "modelopt" or (isinstance(made_by, dict) and made_by.get("name") == "modelopt")
    named = f"{method!r} (ModelOpt {section.get('quant_algo')})" if modelopt else repr(method)
    raise UserError(f"quantization_config.quant_method: {named} is not supported; fits fp8 or compressed-tensors", READABLE)


def _check_experts(config: Json) -> None:
    """Refuse FP8 whose experts are in another type, which DeepSeek-V4 says beside the section. Raises UserError."""
    found = config.get("expert_dtype")
    if found not in (None, "fp8"):
        raise UserError(f"config.json: expert_dtype: got {str(found)[:80]!r}; needs fp8: experts of another type are not read", READABLE)


def _shape(config: Json) -> ModelShape | None:
    try:
        return shape_from_config(config)
    except UserError:
        return None  # told by who needs the shape itself


def _parse_fp8(section: Json) -> WeightFormat:
    check_keys(section, keys.FP8, SECTION)
    size = section.get("weight_block_size")
    if size is not None and not (isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)):
        raise UserError(f"quantization_config.weight_block_size: {size!r}; needs two positive numbers")
    names = _names(section, "modules_to_not_convert", SECTION) or _names(section, "ignored_layers", SECTION)
    activations: Activations = "none" if section.get(WEIGHT_ONLY) is True else "dynamic"
    scale_format: Literal["float32", "ue8m0"] = "ue8m0" if section.get("scale_fmt") == "ue8m0" else "float32"
    block = None if size is None else (size[0], size[1])
    stored = Stored("fp8", activations, lambda: ignore_rules.excluded(names, with_parts=True), block, scale_format)
    found = _read(stored)
    assert found is not None, "any block size is a format"
    return found


def _parse_compressed(section: Json, shape: ModelShape | None) -> WeightFormat:
    check_keys(section, keys.COMPRESSED, SECTION)
    scheme, block, targets = _scheme(section)
    ignored = _names(section, "ignore", SECTION)
    stored = Stored(
        "compressed-tensors",
        _activations(section),
        lambda: _plain(ignored, targets, shape),
        block=block,
        scheme=scheme,
        routed_only=lambda: ignore_rules.routed_only(ignored, targets, shape),
        excluded_experts=lambda: ignore_rules.excluded_experts(ignored, shape),
    )
    if found := _read(stored):
        return found
    kind, bits, strategy, group, file_format = scheme
    raise UserError(
        f"quantization_config.config_groups: weights of type {kind!r}, {bits} bits, strategy {strategy!r}, "
        f"group_size {group}, format {file_format!r} are not supported; "
        f"fits {' or '.join(fmt.reads for fmt in READ if fmt.reads)}",
        "use the model's BF16, FP8 or compressed-tensors INT4 version",
    )


def _read(stored: Stored) -> WeightFormat | None:
    return next((found for fmt in READ if (found := fmt.read(stored)) is not None), None)  # type: ignore[return-value]


def _names(section: Json, key: str, place: str) -> tuple[str, ...]:
    """Return a list of names; a missing or null one is empty. Raises UserError for anything else."""
    value = section.get(key)
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise UserError(f"{place}.{key}: got {str(value)[:80]!r}; needs a list of names", _RESTORE)
    return tuple(value)


def _plain(ignored: Sequence[str], targets: Sequence[str], shape: ModelShape | None) -> tuple[str, ...]:
    """Return what a scheme for all linear layers leaves out: ignored, or named by no target."""
    return tuple(dict.fromkeys((*ignore_rules.excluded(ignored, shape), *ignore_rules.untargeted(targets, shape))))


def _scheme(section: Json) -> tuple[tuple[Any, ...], tuple[int, int] | None, tuple[str, ...]]:
    """Return (type, bits, strategy, group size, file format) of the one weight scheme, its block, and the targets of its groups.

    Groups without a weight scheme are about activations or the KV cache. Raises UserError for none, and for several that differ.
    """
    found: dict[tuple[tuple[Any, ...], tuple[int, int] | None], list[str]] = {}
    groups = section.get("config_groups") or {}
    for name, group in groups.items() if isinstance(groups, dict) else ():
        place = f"{SECTION}.config_groups.{name}"
        if not isinstance(group, dict):
            raise UserError(f"{place}: got {str(group)[:80]!r}; needs an object with weights and targets")
        check_keys(group, keys.GROUP, place)
        weights = group.get("weights")
        if not isinstance(weights, dict):
            continue
        check_keys(weights, keys.WEIGHTS, f"{place}.weights")
        file_format = group.get("format") or section.get("format")
        scheme = (*_numbers(weights), file_format)
        if any(isinstance(value, list | dict) for value in scheme):
            raise UserError(f"{place}.weights: got {str(weights)[:80]!r}; needs numbers and names", _RESTORE)
        block = _block(weights, f"{place}.weights")
        found.setdefault((scheme, block), []).extend(_names(group, "targets", place))
    if len(found) != 1:
        raise UserError(f"quantization_config.config_groups: {len(found)} weight schemes; exactly one is supported")
    (scheme, block), targets = next(iter(found.items()))
    return scheme, block, tuple(targets)


def _block(weights: Json, place: str) -> tuple[int, int] | None:
    """Return rows and columns of a block; None where a scheme has no blocks. Raises UserError for a block that is none."""
    found = weights.get("block_structure")
    if not found:
        return None
    is_pair = isinstance(found, list | tuple) and len(found) == 2 and all(type(n) is int and n > 0 for n in found)
    if not is_pair or str(weights.get("strategy")).lower() != "block":
        raise UserError(f"{place}.block_structure: got {str(found)[:80]!r}; needs two positive numbers, with strategy block", _RESTORE)
    return (found[0], found[1])


def _activations(section: Json) -> Activations:
    """Return whether engines quantise activations: a group without input_activations is weight-only."""
    groups = section.get("config_groups")
    schemes = [g.get("input_activations") for g in groups.values() if isinstance(g, dict)] if isinstance(groups, dict) else []
    return "dynamic" if any(schemes) else "none"


def _numbers(weights: Json) -> tuple[Any, ...]:
    """Return (type, bits, strategy, group size) with what compressed-tensors takes for keys left out."""
    group = weights.get("group_size")
    derived = "tensor" if group is None else "channel" if group == -1 else "group"
    strategy = weights.get("strategy") or derived
    return str(weights.get("type", "int")).lower(), weights.get("num_bits", 8), str(strategy).lower(), group
