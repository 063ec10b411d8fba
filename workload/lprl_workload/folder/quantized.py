"""Codes and scales against the format that config.json says: which tensors stand for a weight, and which shapes they have."""

import math
from collections.abc import Mapping

import torch

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.model.hf_quantization_keys import HIGH_PRECISION
from lprl_workload.folder.contents import FolderContents
from lprl_workload.folder.header import DTYPES, TensorInfo
from lprl_workload.quant.scheme import block_of

FLOATS = ("BF16", "F16", "F32")
SCALES = (*FLOATS, "F8_E8M0")
PACKED = ".weight_packed"
PARTNERS = ("weight_scale_inv", "weight_scale", "weight_shape", "weight_g_idx", "weight_zero_point", "input_scale", "activation_scale")
"""Last names of what belongs to the codes of a weight."""
FORMATS = {"fp8-block": "FP8", "fp8-channel": "FP8", "fp8-tensor": "FP8", "int4-group": "INT4"}
SCALES_MISSING = "complete the download, or save the model again: codes are of no use without their scales"


def is_codes(tensor: TensorInfo) -> bool:
    """Return whether a tensor holds the codes of a quantised weight."""
    return tensor.name.endswith(PACKED) or (tensor.dtype.startswith("F8_") and tensor.name.endswith(".weight"))


def logical(name: str) -> str:
    """Return X.weight for the codes of it."""
    return name.removesuffix("_packed") if name.endswith(PACKED) else name


def check_config_fits(contents: FolderContents, fmt: WeightFormat) -> None:
    """Refuse a folder whose config.json says a precision that no weight has, or none where weights have one. Raises UserError."""
    codes = [t for t in contents.tensors.values() if is_codes(t)]
    config = contents.folder / "config.json"
    if isinstance(fmt, Bf16):
        if codes:
            what = f"{config}: no quantization_config, but tensor {codes[0].name} is {codes[0].dtype} ({len(codes)} such weights)"
            raise UserError(what, "restore the quantization_config the model was published with, or save it in bfloat16")
        return
    kind = FORMATS[fmt.kind]
    if not codes:
        raise UserError(
            f"{config}: quantization_config says {kind} ({fmt.kind}), no weight is {kind}", "remove quantization_config from it"
        )
    wanted = ("I32",) if isinstance(fmt, Int4Group) else ("F8_E4M3",)
    for tensor in codes:
        if tensor.dtype not in wanted or tensor.name.endswith(PACKED) != isinstance(fmt, Int4Group):
            what = f"{contents.path(tensor.name)}: tensor {tensor.name}: {tensor.dtype}; quantization_config says {fmt.kind}"
            raise UserError(what, "restore the quantization_config the model was published with")


def check_codes(contents: FolderContents, tensor: TensorInfo, fmt: WeightFormat) -> tuple[int, int]:
    """Check codes and their scales against each other; returns the weight's [N, K] as they say it.

    Raises UserError naming the tensor that is missing or misshapen.
    """
    module = tensor.name.removesuffix("_packed").removesuffix(".weight")
    there = {part: contents.tensors[f"{module}.{part}"] for part in PARTNERS if f"{module}.{part}" in contents.tensors}
    if zero := there.get("weight_zero_point"):
        what = f"{contents.path(zero.name)}: tensor {zero.name}: asymmetric weights (zero points) are not supported"
        raise UserError(what, HIGH_PRECISION)
    if len(tensor.shape) != 2:
        what = f"{contents.path(tensor.name)}: tensor {tensor.name}: {tensor.dtype} {list(tensor.shape)}; codes of {fmt.kind} are matrices"
        raise UserError(what, "save the model with one matrix per weight")
    scale = _scale(contents, tensor, module, there, fmt)
    rows, cols = tensor.shape
    if isinstance(fmt, Int4Group):
        if "weight_shape" not in there:
            raise UserError(f"{contents.path(tensor.name)}: tensor {tensor.name}: its {module}.weight_shape is missing", SCALES_MISSING)
        cols = (scale.shape[1] if len(scale.shape) == 2 else 0) * fmt.group_size
        fits = scale.shape[:1] == (rows,) and tensor.shape[1] == cols // 8 and math.prod(there["weight_shape"].shape) == 2
        needs: tuple[int, ...] = (rows, -(-tensor.shape[1] * 8 // fmt.group_size))
    else:
        needs, fits = _fp8_scale(fmt, tensor.shape, scale)
    if not fits or scale.dtype not in SCALES:
        found = f"{scale.dtype} {list(scale.shape)} does not fit {fmt.kind} codes {list(tensor.shape)}; needs {list(needs)}"
        remedy = "restore the quantization_config and the files the model was published with"
        raise UserError(f"{contents.path(scale.name)}: tensor {scale.name}: {found}", remedy)
    check_order(contents, module, cols, fmt)
    return rows, cols


def check_order(contents: FolderContents, module: str, cols: int, fmt: WeightFormat) -> None:
    """Refuse input channels whose group is not the one they lie in (activation order): every one would get another's scale.

    Reads `weight_g_idx` where there is one: the group of each of the `cols` input channels; -1 stands for no order of its own, as in
    compressed-tensors. Raises UserError naming the tensor.
    """
    info = contents.tensors.get(f"{module}.weight_g_idx")
    if info is None:
        return
    with contents.path(info.name).open("rb") as file:
        file.seek(info.start)
        raw = bytearray(file.read(info.nbytes))
    found = torch.frombuffer(raw, dtype=DTYPES[info.dtype]).long() if raw else torch.zeros(0, dtype=torch.long)
    group = fmt.group_size if isinstance(fmt, Int4Group) else cols
    if found.shape == (cols,) and (torch.equal(found, torch.arange(cols) // group) or bool((found == -1).all())):
        return
    what = f"{contents.path(info.name)}: tensor {info.name}: input channels take their scales out of order (activation order)"
    raise UserError(what, f"{HIGH_PRECISION}, or one quantised with actorder weight or none")


def _scale(contents: FolderContents, tensor: TensorInfo, module: str, there: Mapping[str, TensorInfo], fmt: WeightFormat) -> TensorInfo:
    # transformers writes FP8 scales without blocks under the block name.
    names = ("weight_scale_inv",) if isinstance(fmt, Fp8Block) else ("weight_scale", "weight_scale_inv")
    for name in names:
        if name in there:
            return there[name]
    found = next((there[name].name for name in ("weight_scale", "weight_scale_inv") if name in there), None)
    also = f" ({found} is there: quantization_config is of another scheme)" if found else ""
    raise UserError(f"{contents.path(tensor.name)}: tensor {tensor.name}: its scale {module}.{names[0]} is missing{also}", SCALES_MISSING)


def _fp8_scale(fmt: Fp8Block | Fp8Channel | Fp8Tensor | Bf16, codes: tuple[int, ...], scale: TensorInfo) -> tuple[tuple[int, int], bool]:
    if isinstance(fmt, Bf16):
        raise AssertionError("unreachable: a BF16 folder has no codes")
    rows, cols = codes
    bn, bk = block_of(fmt, rows, cols)
    wanted = (-(-rows // bn), -(-cols // bk)) if rows and cols else (0, 0)
    fits = math.prod(scale.shape) == math.prod(wanted) and (scale.shape == wanted or not isinstance(fmt, Fp8Block))
    return wanted, fits
