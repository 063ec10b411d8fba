"""Stages and chunks: the worked example, and that every layer lies in one place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lprl_workload.train.megatron.stages import Stages


def test_the_worked_example() -> None:
    stages = Stages((4, 4, 2), vpp=2)
    found = [[list(stages.chunk(stage, chunk)) for chunk in range(2)] for stage in range(3)]
    assert found == [[[0, 1], [5, 6]], [[2, 3], [7, 8]], [[4], [9]]]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(1, 3))
def test_every_layer_lies_in_one_chunk_and_runs_in_order(each: list[int], vpp: int) -> None:
    stages = Stages(tuple(n * vpp for n in each), vpp)
    order = [layer for chunk in range(vpp) for stage in range(len(each)) for layer in stages.chunk(stage, chunk)]
    assert order == list(range(sum(stages.layers)))
    places = [(s, c) for s in range(len(each)) for c in range(vpp)]
    assert [p for p in places if stages.embeds(*p)] == [(0, 0)] and [p for p in places if stages.ends(*p)] == [(len(each) - 1, vpp - 1)]


@pytest.mark.parametrize("layers", [(3, 4), (1, 4)])
def test_chunks_of_a_stage_are_equal(layers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cannot be cut into 2 chunks"):
        Stages(layers, vpp=2)
