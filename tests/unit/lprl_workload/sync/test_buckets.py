"""Buckets tile their buffer, come back bit for bit, and stay within the bound."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lprl_workload.data import Bucket, BucketEntry, NamedTensor
from lprl_workload.io.dtypes import DTYPE_NAMES
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.sync.buckets import make_bucket, pack, unpack
from lprl_workload.sync.routes import ALIGNMENT, Target
from lprl_workload.sync.wire import decode_bucket, encode_bucket


def tensor_of(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    numel = int(torch.tensor(shape).prod()) if shape else 1
    raw = torch.randint(0, 2, (numel * dtype.itemsize,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return raw.view(dtype).reshape(shape)


shapes = st.lists(st.integers(0, 9), min_size=0, max_size=3).map(tuple)
tensors = st.lists(st.tuples(st.sampled_from(list(DTYPE_NAMES)), shapes, st.integers(0, 99)), max_size=12)


@settings(max_examples=80, deadline=None)
@given(tensors, st.integers(16, 600))
def test_pack_and_unpack_are_inverse_within_the_bound(rows: list[tuple[torch.dtype, tuple[int, ...], int]], bound: int) -> None:
    named = [NamedTensor(f"t{n}", tensor_of(*row)) for n, row in enumerate(rows)]
    buckets = list(pack(named, bound))
    back = [item for bucket in buckets for item in unpack(bucket)]
    assert [item.name for item in back] == [item.name for item in named]
    for one, other in zip(named, back, strict=True):
        assert one.tensor.dtype == other.tensor.dtype and one.tensor.shape == other.tensor.shape
        assert torch.equal(one.tensor.reshape(-1).view(torch.uint8), other.tensor.reshape(-1).view(torch.uint8))
    for bucket in buckets:
        assert bucket.data.numel() <= bound or len(bucket.entries) == 1
        assert all(entry.offset % ALIGNMENT == 0 for entry in bucket.entries)
        ends = [0, *(entry.offset + entry.nbytes for entry in bucket.entries)]
        assert all(0 <= entry.offset - end < ALIGNMENT for entry, end in zip(bucket.entries, ends, strict=False))
        to = [Target(3, 1), Target(0)]
        assert decode_bucket(encode_bucket(bucket.entries, to)) == (bucket.entries, frozenset(to))


def test_pack_reads_only_as_far_as_needed() -> None:
    read = []

    def source() -> object:
        for n in range(10):
            read.append(n)
            yield NamedTensor(f"t{n}", torch.zeros(64, dtype=torch.uint8))

    buckets = pack(source(), 128)  # type: ignore[arg-type]
    next(buckets)
    assert len(read) == 3, "two tensors of the first bucket and the one that did not fit"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        pytest.param(BucketEntry("x", "F32", (4,), 8, 16), "does not fit", id="beyond-the-end"),
        pytest.param(BucketEntry("x", "F32", (3,), 0, 16), "does not fit", id="shape-and-bytes-differ"),
        pytest.param(BucketEntry("x", "F7", (4,), 0, 16), "unknown dtype", id="unknown-dtype"),
    ],
)
def test_unpack_refuses(entry: BucketEntry, message: str) -> None:
    with pytest.raises(WeightMismatchError, match=message):
        list(unpack(Bucket((entry,), torch.zeros(16, dtype=torch.uint8))))


@pytest.mark.parametrize("raw", [b"", b"[", b"{}1", b'[[],["a"]]', b'[[],[["a","F32",4,0,0]]]', b'[[["x"]],[]]', b"\xff"])
def test_wire_refuses_a_broken_header(raw: bytes) -> None:
    with pytest.raises(WeightMismatchError):
        decode_bucket(raw)


def test_views_share_the_bucket() -> None:
    bucket = make_bucket([NamedTensor("x", torch.zeros(4))])
    next(iter(unpack(bucket))).tensor[0] = 1.0
    assert bucket.data.any()
