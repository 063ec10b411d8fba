"""The invariants pack.py states, over random inputs, and its corner cases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lprl_workload.train.pack import micro_batches, partition

lengths_strategy = st.lists(st.integers(0, 300), max_size=60)


@given(lengths_strategy, st.integers(1, 9), st.booleans())
def test_partition(lengths: list[int], ranks: int, balance: bool) -> None:
    parts = partition(lengths, ranks, balance)
    assert len(parts) == ranks
    assert sorted(n for part in parts for n in part) == list(range(len(lengths)))
    assert all(part == sorted(part) for part in parts)
    if balance:
        loads = [sum(lengths[n] for n in part) for part in parts]
        assert max(loads) - min(loads) <= max(lengths, default=0)
    else:
        assert [n for part in parts for n in part] == list(range(len(lengths)))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(lengths_strategy, st.integers(1, 500))
def test_micro_batches(lengths: list[int], max_tokens: int) -> None:
    groups = micro_batches(lengths, max_tokens)
    assert sorted(n for group in groups for n in group) == list(range(len(lengths)))
    flat = [lengths[n] for group in groups for n in group]
    assert flat == sorted(flat, reverse=True)
    for group in groups:
        assert group
        assert len(group) == 1 or len(group) * max(lengths[n] for n in group) <= max_tokens


@pytest.mark.parametrize(
    ("lengths", "ranks", "want"),
    [
        pytest.param([5, 5, 5, 5], 2, [[0, 2], [1, 3]], id="equal-lengths-alternate"),
        pytest.param([9, 1, 1, 1, 6], 2, [[0], [1, 2, 3, 4]], id="long-one-alone"),
        pytest.param([7], 3, [[0], [], []], id="idle-ranks"),
        pytest.param([0, 0, 0], 3, [[0], [1], [2]], id="empty-samples-spread"),
    ],
)
def test_partition_table(lengths: list[int], ranks: int, want: list[list[int]]) -> None:
    assert partition(lengths, ranks) == want


@pytest.mark.parametrize(
    ("lengths", "max_tokens", "want"),
    [
        pytest.param([4, 4, 4], 8, [[0, 1], [2]], id="full-then-rest"),
        pytest.param([3, 100, 3], 8, [[1], [0, 2]], id="one-too-long-goes-alone"),
        pytest.param([], 8, [], id="nothing"),
    ],
)
def test_micro_batches_table(lengths: list[int], max_tokens: int, want: list[list[int]]) -> None:
    assert micro_batches(lengths, max_tokens) == want


def test_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="ranks: got 0"):
        partition([1], 0)
    with pytest.raises(ValueError, match="max_tokens: got 0"):
        micro_batches([1], 0)
