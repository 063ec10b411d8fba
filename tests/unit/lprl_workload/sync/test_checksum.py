"""The checksum sees flips, swaps and permutations, adds up over pieces, and waits for no device."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lprl_workload.io.dtypes import DTYPE_NAMES
from lprl_workload.sync.checksum import checksum


def random(shape: tuple[int, ...], dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> torch.Tensor:
    size = int(torch.tensor(shape).prod()) * dtype.itemsize
    return torch.randint(0, 2, (size,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)).view(dtype).reshape(shape)


def total(tensor: torch.Tensor) -> int:
    return int(checksum(tensor))


@pytest.mark.parametrize("dtype", list(DTYPE_NAMES), ids=str)
def test_a_flipped_bit_is_seen_anywhere(dtype: torch.dtype) -> None:
    tensor = random((7, 5), dtype)
    for byte in range(tensor.numel() * dtype.itemsize):
        other = tensor.clone()
        other.view(torch.uint8).reshape(-1)[byte] ^= 1
        assert total(other) != total(tensor)


@given(st.integers(2, 12), st.integers(1, 6), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_rows_in_another_order_are_seen(rows: int, cols: int, order: object) -> None:
    tensor = torch.arange(rows * cols, dtype=torch.int32).reshape(rows, cols)
    permuted = list(range(rows))
    order.shuffle(permuted)  # type: ignore[attr-defined]
    assert (total(tensor[permuted]) == total(tensor)) == (permuted == sorted(permuted))


def test_transposed_reversed_and_constant_tensors_differ() -> None:
    square = torch.arange(16, dtype=torch.int16).reshape(4, 4)
    assert len({total(square), total(square.T), total(square.flip(0)), total(square.flip(1)), total(torch.ones(4, 4).bfloat16())}) == 5


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 9), st.integers(0, 9))
@settings(max_examples=80, deadline=None)
def test_pieces_add_up_to_the_whole(rows: int, cols: int, across: int, down: int) -> None:
    whole, (r, c) = random((rows, cols)), (min(across, rows), min(down, cols))
    boxes = [(slice(0, r), slice(0, c)), (slice(0, r), slice(c, cols)), (slice(r, rows), slice(0, c)), (slice(r, rows), slice(c, cols))]
    parts = [checksum(whole[box], whole.shape, [s.start for s in box]) for box in boxes]
    assert int(sum(parts)) == int(checksum(whole)) or int(torch.stack(parts).sum()) == int(checksum(whole))


def test_chunks_do_not_change_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = random((33, 3, 5))
    want = total(tensor)
    monkeypatch.setattr("lprl_workload.sync.checksum.CHUNK_ELEMENTS", 16)
    assert total(tensor) == want


def test_scalars_and_empty_tensors_have_one() -> None:
    assert total(torch.tensor(3)) != total(torch.tensor(4))
    assert total(torch.empty(0, 4)) == 0
