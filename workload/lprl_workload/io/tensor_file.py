"""Writing safetensors files; a full volume is told as such (the library's own error is of no kind and carries no errno)."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from lprl_api.errors import StorageFullError
from lprl_workload.io.dtypes import DTYPE_NAMES
from lprl_workload.io.header import header_of
from lprl_workload.io.parts import FileRecord, PartWriter

_FULL = ("os error 28", "os error 122")
"""ENOSPC and EDQUOT as its message ends."""


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write `tensors` to `path`. Raises StorageFullError."""
    try:
        save_file(dict(tensors), path, metadata=dict(metadata) if metadata is not None else None)
    except SafetensorError as error:
        if any(code in str(error) for code in _FULL):
            raise StorageFullError(f"{path}: no space left for {len(tensors)} tensors", "free space or enlarge the volume") from error
        raise


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> FileRecord:
    """Write `tensors` (on the CPU) to `path`, durably, hashed on the way. Raises StorageFullError."""
    # Wide elements first: every tensor is aligned to its element, as the library does it.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header = header_of(((name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in ordered), metadata)
    with PartWriter(path) as part:
        part.write(header)
        for _, tensor in ordered:
            part.write(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return part.record
