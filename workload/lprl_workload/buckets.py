"""Named tensors <-> byte-bounded buckets, and the digest both ends of a weight push compare.

A bucket holds tensors up to `bucket_bytes`; a tensor larger than that travels alone in a bucket of its own size (it is
not split: the receiver needs it whole anyway). So a push stages at most 2 x max(bucket_bytes, largest tensor): the
tensors waiting for the bucket, and the bucket.
"""

import hashlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from lprl_workload.data import Bucket, BucketEntry, NamedTensor
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.process.movement import here

ALIGNMENT = 16
"""Offsets are multiples of this many bytes, so that every dtype can be viewed in place."""

DTYPE_NAMES: dict[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
"""safetensors' name of each dtype."""
TORCH_DTYPES: dict[str, torch.dtype] = {name: dtype for dtype, name in DTYPE_NAMES.items()}


def as_bytes(tensor: Tensor) -> Tensor:
    """Return the tensor's bytes, uint8 [nbytes]; a view when it is contiguous."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


class Digest:
    """Digest of a set of named tensors: sha256 over (name, sha256 of dtype, shape and bytes) in name order.

    Incremental, and independent of the order in which tensors arrive; keeps 32 bytes a tensor.
    """

    def __init__(self) -> None:
        self._parts: dict[str, bytes] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        """Add one tensor; raises WeightMismatchError when the name was added before."""
        if name in self._parts:
            raise WeightMismatchError(f"{name}: sent twice in one update")
        part = hashlib.sha256(f"{DTYPE_NAMES[tensor.dtype]} {','.join(map(str, tensor.shape))}\n".encode())
        part.update(as_bytes(tensor.cpu()).numpy().data)
        self._parts[name] = part.digest()

    def add_bucket(self, bucket: Bucket) -> None:
        """Add every tensor of a bucket."""
        for item in unpack(bucket):
            self.add(item.name, item.tensor)

    @property
    def names(self) -> frozenset[str]:
        """Names added so far."""
        return frozenset(self._parts)

    def hexdigest(self) -> str:
        """Return the digest of everything added so far, 64 hexadecimal digits."""
        whole = hashlib.sha256()
        for name in sorted(self._parts):
            whole.update(name.encode() + b"\0" + self._parts[name])
        return whole.hexdigest()


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def make_bucket(items: list[NamedTensor]) -> Bucket:
    """Copy `items` (all on one device) into one buffer, in order, each at the next multiple of 16 bytes."""
    entries: list[BucketEntry] = []
    end = 0
    for item in items:
        nbytes = item.tensor.numel() * item.tensor.element_size()
        entries.append(BucketEntry(item.name, DTYPE_NAMES[item.tensor.dtype], tuple(item.tensor.shape), end, nbytes))
        end = _aligned(end + nbytes)
    data = torch.zeros(end, dtype=torch.uint8, device=items[0].tensor.device if items else "cpu")
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
        dtype = TORCH_DTYPES.get(entry.dtype)
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
