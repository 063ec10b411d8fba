"""Named tensors <-> byte-bounded buckets.

A bucket holds tensors up to `bucket_bytes`; a tensor larger than that travels alone in a bucket of its own size (it is
not split: the receiver needs it whole anyway). So a push stages at most 2 x max(bucket_bytes, largest tensor): the
tensors waiting for the bucket, and the bucket.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from lprl_workload.data import Bucket, BucketEntry, NamedTensor
from lprl_workload.io.dtypes import DTYPE_NAMES, DTYPES
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.process.movement import here
from lprl_workload.sync.routes import ALIGNMENT


def as_bytes(tensor: Tensor) -> Tensor:
    """Return the tensor's bytes, uint8 [nbytes]; a view when it is contiguous."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _device(items: list[NamedTensor]) -> torch.device:
    """Return the device of a bucket: the accelerator's where any tensor lies there (small tables may lie on the host)."""
    found = [item.tensor.device for item in items]
    return next((device for device in found if device.type != "cpu"), found[0] if found else torch.device("cpu"))


def make_bucket(items: list[NamedTensor]) -> Bucket:
    """Copy `items` into one buffer, in order, each at the next multiple of 16 bytes."""
    entries: list[BucketEntry] = []
    end = 0
    for item in items:
        nbytes = item.tensor.numel() * item.tensor.element_size()
        entries.append(BucketEntry(item.name, DTYPE_NAMES[item.tensor.dtype], tuple(item.tensor.shape), end, nbytes))
        end = _aligned(end + nbytes)
    data = torch.zeros(end, dtype=torch.uint8, device=_device(items))
    for entry, item in zip(entries, items, strict=True):
        data[entry.offset : entry.offset + entry.nbytes].copy_(as_bytes(item.tensor))
    return Bucket(tuple(entries), data)


def pack(tensors: Iterable[NamedTensor], bucket_bytes: int) -> Iterator[Bucket]:
    """Yield buckets of at most `bucket_bytes` (a larger tensor alone), in order, reading `tensors` only as far as needed."""
    waiting: list[NamedTensor] = []
    size = 0
    for item in tensors:
        here.tick()
        nbytes = _aligned(item.tensor.numel() * item.tensor.element_size())
        if waiting and size + nbytes > bucket_bytes:
            yield make_bucket(waiting)
            waiting, size = [], 0
        waiting.append(item)
        size += nbytes
    if waiting:
        yield make_bucket(waiting)


def unpack(bucket: Bucket) -> Iterator[NamedTensor]:
    """Yield the tensors of a bucket as views into its buffer.

    Raises:
        WeightMismatchError: an entry lies outside the buffer, has an unknown dtype or a size that is not its shape's.

    """
    for entry in bucket.entries:
        dtype = DTYPES.get(entry.dtype)
        if dtype is None:
            raise WeightMismatchError(f"{entry.name}: unknown dtype {entry.dtype!r} in a bucket")
        raw = bucket.data[entry.offset : entry.offset + entry.nbytes]
        numel = 1
        for size in entry.shape:
            numel *= size
        if raw.numel() != entry.nbytes or numel * dtype.itemsize != entry.nbytes:
            raise WeightMismatchError(f"{entry.name}: {raw.numel()} bytes in the bucket, {entry.dtype} {list(entry.shape)} does not fit")
        here.tick()
        yield NamedTensor(entry.name, raw.view(dtype).reshape(entry.shape))
