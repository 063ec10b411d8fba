"""Buckets tile their buffer, come back bit for bit, and stay within the bound; the digest sees every difference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lprl_workload.buckets import ALIGNMENT, DTYPE_NAMES, Digest, make_bucket, pack, unpack
from lprl_workload.data import Bucket, BucketEntry, NamedTensor
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.sync.wire import decode_entries, encode_entries


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
        assert decode_entries(encode_entries(bucket.entries)) == bucket.entries


def test_pack_reads_only_as_far_as_needed() -> None:
    read = []

    def source() -> object:
        for n in range(10):
            read.append(n)
            yield NamedTensor(f"t{n}", torch.zeros(64, dtype=torch.uint8))

    buckets = pack(source(), 128)  # type: ignore[arg-type]
    next(buckets)
    assert len(read) == 3, "two tensors of the first bucket and the one that did not fit"


def digest_of(*named: tuple[str, torch.Tensor]) -> str:
    digest = Digest()
    for name, tensor in named:
        digest.add(name, tensor)
    return digest.hexdigest()


BASE = (("a", torch.arange(6, dtype=torch.int32)), ("b", torch.ones(2, 3)))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param((("a", torch.arange(6, dtype=torch.int32)),), id="missing"),
        pytest.param((("a", torch.arange(6, dtype=torch.int32)), ("c", torch.ones(2, 3))), id="renamed"),
        pytest.param((("a", torch.arange(6, dtype=torch.int32)), ("b", torch.ones(3, 2))), id="reshaped"),
        pytest.param((("a", torch.arange(6, dtype=torch.int32).view(torch.float32)), ("b", torch.ones(2, 3))), id="retyped"),
        pytest.param((("a", torch.tensor([0, 1, 2, 3, 4, 6], dtype=torch.int32)), ("b", torch.ones(2, 3))), id="changed"),
        pytest.param((("b", torch.arange(6, dtype=torch.int32)), ("a", torch.ones(2, 3))), id="swapped"),
    ],
)
def test_digest_sees_every_difference(other: tuple[tuple[str, torch.Tensor], ...]) -> None:
    assert digest_of(*other) != digest_of(*BASE)


def test_digest_does_not_depend_on_order() -> None:
    assert digest_of(*reversed(BASE)) == digest_of(*BASE)


def test_digest_refuses_a_name_twice() -> None:
    with pytest.raises(WeightMismatchError, match="a: sent twice"):
        digest_of(*BASE, BASE[0])


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


@pytest.mark.parametrize("raw", [b"", b"[", b"{}1", b'[["a"]]', b'[["a","F32",4,0,0]]', b"\xff"])
def test_wire_refuses_a_broken_header(raw: bytes) -> None:
    with pytest.raises(WeightMismatchError):
        decode_entries(raw)


def test_views_share_the_bucket() -> None:
    bucket = make_bucket([NamedTensor("x", torch.zeros(4))])
    next(iter(unpack(bucket))).tensor[0] = 1.0
    assert bucket.data.any()
