"""The trainer's ranks as a mesh: every rank stands somewhere, groups tile, each data index has one that answers."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lprl_workload.train.mesh import TrainMesh

sizes = st.integers(1, 3)


@st.composite
def meshes(draw: st.DrawFn) -> TrainMesh:
    dp, cp, tp, pp = (draw(sizes) for _ in range(4))
    ranks = dp * cp * tp
    fits = [(e, t) for e, t in product(range(1, ranks + 1), repeat=2) if ranks % (e * t) == 0]
    ep, etp = draw(st.sampled_from(fits))
    return TrainMesh(dp, cp, tp, pp, draw(sizes) if pp > 1 else 1, ep, etp)


@given(meshes())
def test_every_rank_stands_somewhere_of_its_own(mesh: TrainMesh) -> None:
    places = [mesh.coordinates(rank) for rank in range(mesh.world)]
    assert len(set(places)) == mesh.world == mesh.dp * mesh.cp * mesh.tp * mesh.pp
    assert [mesh.rank_at(c.data, c.context, c.tensor, c.stage) for c in places] == list(range(mesh.world))


@given(meshes())
def test_each_data_index_has_one_rank_that_answers_and_it_computes_the_loss(mesh: TrainMesh) -> None:
    answering = [mesh.answering_rank(data) for data in range(mesh.dp)]
    assert [mesh.coordinates(rank).data for rank in answering] == list(range(mesh.dp))
    assert all(mesh.coordinates(rank).stage == mesh.pp - 1 and mesh.takes_data(rank) for rank in answering)


@given(meshes())
def test_first_and_last_stages_take_the_data_of_their_index(mesh: TrainMesh) -> None:
    taken = [rank for data in range(mesh.dp) for rank in mesh.data_ranks(data)]
    assert sorted(taken) == [rank for rank in range(mesh.world) if mesh.coordinates(rank).stage in (0, mesh.pp - 1)]
    assert all(mesh.coordinates(rank).data == data for data in range(mesh.dp) for rank in mesh.data_ranks(data))


@given(meshes())
def test_groups_tile_the_ranks(mesh: TrainMesh) -> None:
    for groups, size in ((mesh.data_parallel_groups(), mesh.dp), (mesh.expert_groups(), mesh.ep)):
        assert sorted(rank for group in groups for rank in group) == list(range(mesh.world))
        assert {len(group) for group in groups} == {size}
        assert all(len({mesh.coordinates(rank).stage for rank in group}) == 1 for group in groups)


def test_the_worked_example() -> None:
    mesh = TrainMesh(dp=2, tp=2, pp=2)
    assert [mesh.data_ranks(data) for data in (0, 1)] == [(0, 1, 4, 5), (2, 3, 6, 7)]
    assert [mesh.answering_rank(data) for data in (0, 1)] == [4, 6]
    assert mesh.data_parallel_groups() == ((0, 2), (1, 3), (4, 6), (5, 7))


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        pytest.param({"dp": 0}, "dp: got 0", id="no-ranks"),
        pytest.param({"vpp": 2}, "vpp: got 2, needs more than one", id="chunks-without-stages"),
        pytest.param({"dp": 3, "ep": 2}, "ep x etp: got 2 x 1, needs a divisor of the 3 ranks", id="experts-do-not-tile"),
    ],
)
def test_sizes_of_no_grid_are_refused(wrong: dict[str, int], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        TrainMesh(**wrong)
