"""Hand a bucket in GPU memory to another process on the same GPU, without a copy through the host (colocated placement).

The sender keeps the bucket alive until the receiver confirmed it; the receiver copies out of it before it confirms.
Only processes of one run exchange handles: they are built-in values, never files.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.multiprocessing import reductions

from lprl_workload.data import Bucket, BucketEntry
from lprl_workload.process.errors import WeightMismatchError

_DEVICE_ARGUMENT = "storage_device"
"""Name of the device's index in rebuild_cuda_tensor's arguments: the only one that differs between processes that see other GPUs."""


def _own(name: str) -> Callable[..., Any]:
    """Return torch's own function of `reductions`: SGLang puts others in the place of two, and keeps these beside them."""
    found: Callable[..., Any] = getattr(reductions, f"_{name}_original", None) or getattr(reductions, name)
    return found


@dataclass(frozen=True, slots=True)
class BucketHandle:
    """A bucket whose bytes stay in the sender's GPU memory."""

    entries: tuple[BucketEntry, ...]
    device_uuid: str
    arguments: tuple[Any, ...]
    """Arguments of torch's rebuild_cuda_tensor: memory handles and plain numbers."""


def share(bucket: Bucket) -> BucketHandle:
    """Return a handle of a bucket in GPU memory; raises ValueError for one in host memory."""
    if not bucket.data.is_cuda:
        raise ValueError(f"only CUDA buckets can be shared by handle, this one is on {bucket.data.device}")
    _, arguments = _own("reduce_tensor")(bucket.data)
    uuid = str(torch.cuda.get_device_properties(bucket.data.device).uuid)
    return BucketHandle(bucket.entries, uuid, tuple(arguments))


def open_handle(handle: BucketHandle) -> Bucket:
    """Map the sender's memory; raises WeightMismatchError when this process does not see that GPU."""
    place = _device_place()
    for index in range(torch.cuda.device_count()):
        if str(torch.cuda.get_device_properties(index).uuid) == handle.device_uuid:
            return Bucket(handle.entries, _own("rebuild_cuda_tensor")(*handle.arguments[:place], index, *handle.arguments[place + 1 :]))
    raise WeightMismatchError(f"GPU {handle.device_uuid} of the sender is not visible to this engine")


def _device_place() -> int:
    """Return where this torch expects the device's index; torch does not promise the place. Raises RuntimeError where it has none."""
    names = list(inspect.signature(_own("rebuild_cuda_tensor")).parameters)
    if _DEVICE_ARGUMENT not in names:
        raise RuntimeError(f"torch {torch.__version__}: {_DEVICE_ARGUMENT} is no argument of rebuild_cuda_tensor; found {', '.join(names)}")
    return names.index(_DEVICE_ARGUMENT)
