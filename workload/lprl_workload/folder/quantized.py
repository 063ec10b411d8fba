"""Codes and scales against the format that config.json says: which tensors stand for a weight, and which shapes they have."""

import math
from collections.abc import Mapping

from lprl_api.errors import UserError
from lprl_api.model.formats import FORMATS, Bf16, WeightFormat
from lprl_api.model.hf_quantization_keys import HIGH_PRECISION
from lprl_workload.folder.contents import FolderContents
from lprl_workload.folder.header import TensorInfo

FLOATS = ("BF16", "F16", "F32")
SCALES = (*FLOATS, "F8_E8M0")
PACKED = ".weight_packed"
PARTNERS = ("weight_scale_inv", "weight_scale", "weight_shape", "weight_g_idx", "weight_zero_point", "input_scale", "activation_scale")
"""Last names of what belongs to the codes of a weight."""
CODES = frozenset((part.leaf, part.dtype) for fmt in FORMATS.values() if fmt is not Bf16 for part in fmt().parts(1, 1)[:1])
"""(last name, dtype) of the codes of each format."""
SCALES_MISSING = "complete the download, or save the model again: codes are of no use without their scales"


def is_codes(tensor: TensorInfo) -> bool:
    """Return whether a tensor holds the codes of a quantised weight."""
    leaf = tensor.name.rpartition(".")[2]
    return tensor.name.endswith(PACKED) or (tensor.dtype.startswith("F8_") and leaf == "weight") or (leaf, tensor.dtype) in CODES


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
    kind, wanted = fmt.family, fmt.parts(1, 1)[0]
    if not codes:
        raise UserError(
            f"{config}: quantization_config says {kind} ({fmt.kind}), no weight is {kind}", "remove quantization_config from it"
        )
    for tensor in codes:
        if tensor.dtype != wanted.dtype or not tensor.name.endswith(f".{wanted.leaf}"):
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
    (rows, cols), needs, fits = fmt.logical(tensor.shape, scale.shape)
    for part in fmt.parts(rows, cols)[2:]:
        if part.leaf not in there:
            raise UserError(f"{contents.path(tensor.name)}: tensor {tensor.name}: its {module}.{part.leaf} is missing", SCALES_MISSING)
        fits = fits and math.prod(there[part.leaf].shape) == math.prod(part.shape)
    if not fits or scale.dtype not in (*SCALES, fmt.parts(1, 1)[1].dtype):
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
    # Hardly a folder has one: who only reads what a folder is does without torch.
    import torch

    from lprl_workload.io.dtypes import DTYPES

    with contents.path(info.name).open("rb") as file:
        file.seek(info.start)
        raw = bytearray(file.read(info.nbytes))
    found = torch.frombuffer(raw, dtype=DTYPES[info.dtype]).long() if raw else torch.zeros(0, dtype=torch.long)
    group = fmt.tile(1, cols)[1]
    if found.shape == (cols,) and (torch.equal(found, torch.arange(cols) // group) or bool((found == -1).all())):
        return
    what = f"{contents.path(info.name)}: tensor {info.name}: input channels take their scales out of order (activation order)"
    raise UserError(what, f"{HIGH_PRECISION}, or one quantised with actorder weight or none")


def _scale(contents: FolderContents, tensor: TensorInfo, module: str, there: Mapping[str, TensorInfo], fmt: WeightFormat) -> TensorInfo:
    # transformers writes FP8 scales without blocks under the block name.
    wanted = fmt.leaves[1]
    names = (wanted,) if wanted.endswith("_inv") else (wanted, f"{wanted}_inv")
    for name in names:
        if name in there:
            return there[name]
    found = next((there[name].name for name in ("weight_scale", "weight_scale_inv") if name in there), None)
    also = f" ({found} is there: quantization_config is of another scheme)" if found else ""
    raise UserError(f"{contents.path(tensor.name)}: tensor {tensor.name}: its scale {module}.{names[0]} is missing{also}", SCALES_MISSING)
