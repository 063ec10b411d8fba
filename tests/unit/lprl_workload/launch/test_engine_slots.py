"""Which devices an engine gets: a replacement never takes those of an engine that lives."""

import pytest

from lprl_workload.launch.deal import turns
from lprl_workload.launch.hosts import Place

A, B = Place("a", "10.0.0.1", 1), Place("b", "10.0.0.2", 2)


def test_engines_of_a_node_are_numbered_in_order() -> None:
    assert turns([A, A, B, B, A], [None] * 5, [None] * 5) == [0, 1, 0, 1, 2]


def test_replacements_that_come_back_swapped_take_the_free_devices() -> None:
    assert turns([B, A, B, A], [A, A, B, B], [0, 1, 0, 1]) == [1, 1, 0, 0]


def test_replacements_that_come_back_where_they_were_keep_their_devices() -> None:
    """Whichever was there first: two that were numbered the other way round, and die together, are not exchanged."""
    assert turns([A, A, B], [A, A, B], [1, 0, 0]) == [1, 0, 0]


@pytest.mark.parametrize("lost", [(0,), (1, 2), (0, 3), (0, 1, 2, 3)])
def test_no_two_engines_of_a_node_share_a_turn(lost: tuple[int, ...]) -> None:
    before = turns([A, A, B, B], [None] * 4, [None] * 4)
    homes = sorted(("a" if n < 2 else "b" for n in lost), reverse=True)
    places: list[Place | None] = [A, A, B, B]
    for number, home in zip(lost, homes, strict=True):
        places[number] = A if home == "a" else B
    found = [(place.node, turn) for place, turn in zip(places, turns(places, [A, A, B, B], before), strict=True) if place]
    assert len(set(found)) == 4 and {turn for _, turn in found} == {0, 1}
    assert all(turn == before[number] for number, (_, turn) in enumerate(found) if number not in lost)
