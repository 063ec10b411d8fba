"""WeightFormat <-> `quantization_config` of a Hugging Face config.json: what engines and transformers read.

fp8-block                {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": [...]}
fp8-channel, fp8-tensor  compressed-tensors `float-quantized`, strategy channel or tensor, dynamic per-token activations or none
int4-group               compressed-tensors `pack-quantized`, strategy group, symmetric
"""

from collections.abc import Iterable

from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.model.hf_quantization import KEYS, WEIGHT_ONLY, Json, find_quantization_config, parse_quantization_config, strip_quantization
from lprl_workload.quant import ignore
from lprl_workload.quant.select import Selection

__all__ = ["KEYS", "Json", "find_quantization_config", "parse_quantization_config", "quantization_config", "strip_quantization"]


def quantization_config(fmt: WeightFormat, selection: Selection, names: Iterable[str]) -> Json | None:
    """Return the `quantization_config` of a checkpoint with weights `names` (of the source) in `fmt`; None for bf16.

    Deterministic: lists are sorted. Raises what Selection.divide raises.
    """
    if isinstance(fmt, Bf16):
        return None
    known = tuple(names)
    if selection.prefix is None:
        selection = Selection.of(fmt, selection.shape, known)
    taken, kept = selection.divide(known)
    layout = ignore.Layout(selection.prefix, selection.shape.layers)
    ignored = ignore.patterns(taken, kept, layout)
    match fmt:
        case Fp8Block():
            block: Json = {
                "quant_method": "fp8",
                "fmt": "e4m3",
                "activation_scheme": "dynamic",
                "weight_block_size": list(fmt.block_size),
                "modules_to_not_convert": ignore.names(kept, layout),
            }
            return (
                block | ({"scale_fmt": "ue8m0"} if fmt.scale_format == "ue8m0" else {}) | ({WEIGHT_ONLY: True} if _weight_only(fmt) else {})
            )
        case Fp8Channel():
            return _compressed("float-quantized", _args(8, "float", "channel"), _inputs(fmt), ignored)
        case Fp8Tensor():
            return _compressed("float-quantized", _args(8, "float", "tensor"), _inputs(fmt), ignored)
        case Int4Group():
            return _compressed("pack-quantized", _args(4, "int", "group", group=fmt.group_size), None, ignored)


def _weight_only(fmt: Fp8Block | Fp8Channel | Fp8Tensor) -> bool:
    return fmt.activations == "none"


def _inputs(fmt: Fp8Channel | Fp8Tensor) -> Json | None:
    """Return the scheme of activations; none makes engines compute with BF16 activations (W8A16)."""
    return None if _weight_only(fmt) else _args(8, "float", "token", dynamic=True)


def _args(bits: int, kind: str, strategy: str, *, group: int | None = None, dynamic: bool = False) -> Json:
    return {
        "num_bits": bits,
        "type": kind,
        "strategy": strategy,
        "symmetric": True,
        "dynamic": dynamic,
        "group_size": group,
        "block_structure": None,
        "actorder": None,
        "observer": None if dynamic else "minmax",
        "observer_kwargs": {},
    }


def _compressed(file_format: str, weights: Json, activations: Json | None, ignored: list[str]) -> Json:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": file_format,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ignored,
        "kv_cache_scheme": None,
    }
