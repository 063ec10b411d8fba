"""What is asked of Ray for an engine, and which of its bundles waits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lprl_workload.launch.ray_bundles import Wanted, engine_bundles, without_room


@pytest.mark.parametrize(
    ("slots", "per_node", "bundles", "strategy"),
    [
        (1, 8, (1,), "PACK"),
        (4, 8, (4,), "PACK"),
        (8, 8, (8,), "PACK"),
        (16, 8, (8, 8), "STRICT_SPREAD"),
        (20, 8, (8, 8, 4), "STRICT_SPREAD"),
    ],
)
def test_an_engine_is_one_bundle_a_node(slots: int, per_node: int, bundles: tuple[int, ...], strategy: str) -> None:
    found = engine_bundles(3, slots, per_node)
    assert (found.bundles, found.strategy) == (bundles, strategy)


@pytest.mark.parametrize(
    ("bundles", "spread", "free", "waits"),
    [
        ((8, 8), True, {"a": 8, "b": 8}, None),
        ((8, 8), True, {"a": 16}, 1),  # room for both, and only one node
        ((8, 8), True, {}, 0),
        ((8, 8, 4), True, {"a": 8, "b": 4, "c": 8}, None),
        ((8, 8, 4), True, {"a": 8, "b": 8}, 2),
        ((1, 1, 1), False, {"a": 2, "b": 1}, None),
        ((1, 1, 1), False, {"a": 2}, 2),
    ],
)
def test_the_bundle_that_finds_no_node_is_named(bundles: tuple[int, ...], spread: bool, free: dict[str, int], waits: int | None) -> None:
    assert without_room(Wanted("engine 0", bundles, spread), free) == waits


def test_a_bundle_is_named_by_its_engine_its_slots_and_where_it_may_go() -> None:
    assert engine_bundles(1, 16, 8).words(1, "lprl_rollout") == "bundle 2 of 2 of engine 1 (8 lprl_rollout, on a node of its own)"
    assert engine_bundles(1, 4, 8).words(0, "lprl_rollout") == "engine 1 (4 lprl_rollout)"


@given(st.integers(1, 64), st.integers(1, 8))
def test_bundles_hold_the_engines_slots_and_none_is_larger_than_a_node(slots: int, per_node: int) -> None:
    found = engine_bundles(0, slots, per_node)
    assert sum(found.bundles) == slots and max(found.bundles) <= per_node and len(found.bundles) == -(-slots // per_node)
