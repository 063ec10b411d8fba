"""Writing a safetensors file; a full volume is told as such (the library's own error is of no kind and carries no errno)."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from lprl_api.errors import StorageFullError

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
