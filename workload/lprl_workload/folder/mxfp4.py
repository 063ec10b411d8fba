"""Experts in MXFP4 among a folder's tensors: X_blocks and X_scales stand for X [experts, in, out]."""

from lprl_api.errors import UserError
from lprl_api.model.formats.mxfp4 import GROUP
from lprl_workload.folder.contents import FolderContents
from lprl_workload.folder.header import TensorInfo

BLOCKS, SCALES = "_blocks", "_scales"


def check_blocks(contents: FolderContents) -> None:
    """Refuse a folder whose config.json says MXFP4 and that has none. Raises UserError."""
    if not any(name.endswith(BLOCKS) for name in contents.tensors):
        what = f"{contents.folder / 'config.json'}: quantization_config says MXFP4, no weight is MXFP4"
        raise UserError(what, "remove quantization_config from it")


def unpacked(contents: FolderContents, tensor: TensorInfo) -> tuple[str, tuple[int, ...]] | None:
    """Return name and shape [experts, in, out] of what blocks, or scales, stand for; None for other tensors.

    Raises UserError naming the tensor where blocks and scales do not fit together.
    """
    if not tensor.name.endswith((BLOCKS, SCALES)) or tensor.dtype != "U8":
        return None
    name = tensor.name.removesuffix(BLOCKS).removesuffix(SCALES)
    blocks, scales = (contents.tensors.get(f"{name}{end}") for end in (BLOCKS, SCALES))
    if blocks is None or scales is None:
        what = f"{contents.path(tensor.name)}: tensor {tensor.name}: its {SCALES if scales is None else BLOCKS} are missing"
        raise UserError(what, "complete the download: codes are of no use without their scales")
    if len(blocks.shape) != 4 or blocks.shape[3] != GROUP // 2 or scales.shape != blocks.shape[:3]:
        found = f"{list(blocks.shape)} with scales {list(scales.shape)}; needs [experts, out, in / {GROUP}, {GROUP // 2}]"
        raise UserError(f"{contents.path(blocks.name)}: tensor {blocks.name}: {found}", "download the model again")
    return name, (blocks.shape[0], blocks.shape[2] * GROUP, blocks.shape[1])
