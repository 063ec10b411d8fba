"""Every key of a `quantization_config` and what becomes of it: applied, of no meaning for stored weights, or refused by name.

A key that is in no table is refused too: what it does to the numbers is not known.

What a serving engine computes beside the weights (quantised activations, a quantised KV cache) is no property of the weights, and no
target of a conversion carries it over.
"""

from collections.abc import Callable, Mapping
from typing import Any

from lprl_api.errors import UserError

Json = Mapping[str, Any]
Accepts = Callable[[Any], bool]
HIGH_PRECISION = "use the model's BF16 version"


def _any(value: object) -> bool:
    return True


def _none(value: object) -> bool:
    return not value


def _one_of(*values: object) -> Accepts:
    return lambda value: value is None or (value.lower() if isinstance(value, str) else value) in values


def _is_dense(value: Any) -> bool:
    """Return whether a sparsity_config says that no weight is stored sparse."""
    return not value or (isinstance(value, Mapping) and value.get("format") in ("dense", None))


def _no_transforms(value: Any) -> bool:
    return not value or (isinstance(value, Mapping) and not value.get("config_groups"))


FP8: Mapping[str, tuple[Accepts, str]] = {
    "quant_method": (_any, ""),
    "weight_block_size": (_any, ""),
    "scale_fmt": (_one_of("float", "float32", "ue8m0"), "float or ue8m0"),
    "fmt": (_one_of("e4m3", "e4m3fn", "float8_e4m3fn"), "e4m3"),
    "modules_to_not_convert": (_any, ""),
    "ignored_layers": (_any, ""),
    "modules_to_convert": (_any, ""),  # read from the tensors
    "activation_scheme": (_one_of("dynamic", "static"), "dynamic or static"),  # activations: not the weights'
    "kv_cache_scheme": (_any, ""),
    "kv_cache_quant_algo": (_any, ""),
    "weight_only": (_one_of(True, False), "true or false"),
    "expert_dtype": (_one_of("fp8"), "fp8"),
    "dequantize": (_any, ""),  # a wish to the loader
    "packed_modules_mapping": (_any, ""),
}
MXFP4: Mapping[str, tuple[Accepts, str]] = {
    "quant_method": (_any, ""),
    "modules_to_not_convert": (_any, ""),  # read from the tensors
    "dequantize": (_any, ""),
}
COMPRESSED: Mapping[str, tuple[Accepts, str]] = {
    "quant_method": (_any, ""),
    "format": (_any, ""),
    "config_groups": (_any, ""),
    "ignore": (_any, ""),
    "version": (_any, ""),
    "quantization_status": (_any, ""),  # whether weights are stored as codes is seen in the tensors
    "global_compression_ratio": (_any, ""),
    "kv_cache_scheme": (_any, ""),
    "sparsity_config": (_is_dense, "none, or format dense: sparse weights are not read"),
    "moe_sparsity_config": (_none, "none"),
    "transform_config": (_no_transforms, "none: rotated weights (Hadamard and the like) are not turned back"),
    "packed_modules_mapping": (_any, ""),
    "run_compressed": (_any, ""),
    "dequantize": (_any, ""),
    "use_optimized_inference": (_any, ""),
    "is_quantization_compressed": (_any, ""),
}
GROUP: Mapping[str, tuple[Accepts, str]] = {
    "targets": (_any, ""),  # what is quantised is seen in the tensors
    "weights": (_any, ""),
    "input_activations": (_any, ""),
    "output_activations": (_any, ""),
    "format": (_any, ""),
}
WEIGHTS: Mapping[str, tuple[Accepts, str]] = {
    "num_bits": (_any, ""),
    "type": (_any, ""),
    "strategy": (_any, ""),
    "group_size": (_any, ""),
    "symmetric": (_one_of(True), "true: asymmetric weights (zero points) are not supported"),
    "dynamic": (_none, "false: weights have stored scales"),
    "actorder": (
        lambda value: not value or _one_of("weight", "static")(value),
        "weight, static or none: with group order every input channel has its scale from another group",
    ),
    "block_structure": (_any, ""),
    "scale_dtype": (_any, ""),  # scales are read in the type they are stored in
    "zp_dtype": (_any, ""),
    "observer": (_any, ""),  # how scales were found
    "observer_kwargs": (_any, ""),
}


def check_keys(section: Json, known: Mapping[str, tuple[Accepts, str]], place: str) -> None:
    """Refuse what would change the meaning of stored weights and is not applied: raises UserError naming `place` and key."""
    for key, value in section.items():
        accepts, needs = known.get(key, (_none, "to be left out: what it means for the weights is not known"))
        if not accepts(value):
            raise UserError(f"{place}.{key}: got {str(value)[:80]!r}; needs {needs}", HIGH_PRECISION)
