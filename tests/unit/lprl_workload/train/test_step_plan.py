"""The invariants `schedule` states, each over random batches, meshes and budgets; and its corner cases."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lprl_workload.train.mesh import TrainMesh
from lprl_workload.train.step_plan import MicroBatch, StepPlan, TokenBudget, schedule

Case = tuple[list[int], TrainMesh, TokenBudget, StepPlan]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    lengths = draw(st.lists(st.integers(0, 300), max_size=50))
    pp = draw(st.integers(1, 4))
    mesh = TrainMesh(dp=draw(st.integers(1, 6)), cp=draw(st.integers(1, 2)), pp=pp, vpp=2 if pp > 1 and draw(st.booleans()) else 1)
    budget = TokenBudget(
        draw(st.integers(1, 500)),
        draw(st.none() | st.integers(1, 60)),
        draw(st.sampled_from(["padded", "packed"])),
        draw(st.sampled_from(["tokens", "attention", "order"])),
    )
    return lengths, mesh, budget, schedule(np.array(lengths, np.int32), mesh, budget)


def cost(group: MicroBatch, lengths: list[int], budget: TokenBudget) -> int:
    sizes = [lengths[n] for n in group]
    return sum(sizes) if budget.layout == "packed" else len(sizes) * max(sizes, default=0)


def needed(part: list[int], lengths: list[int], mesh: TrainMesh, budget: TokenBudget) -> int:
    """Micro-batches of one data index alone, without a pipeline group to fill."""
    alone = TokenBudget(budget.tokens, layout=budget.layout)
    plan = schedule([lengths[n] for n in part], TrainMesh(cp=mesh.cp), alone)
    return len(plan.steps[0].parts[0]) if plan.steps else 0


@given(cases())
def test_1_every_sequence_is_in_one_micro_batch(case: Case) -> None:
    lengths, _, _, plan = case
    assert sorted(n for step in plan.steps for part in step.parts for group in part for n in group) == list(range(len(lengths)))


@given(cases())
def test_2_steps_are_runs_and_nothing_is_dropped(case: Case) -> None:
    lengths, _, budget, plan = case
    assert [n for step in plan.steps for n in range(step.first, step.last)] == list(range(len(lengths)))
    sizes = [step.last - step.first for step in plan.steps]
    assert all(size == (budget.global_batch or len(lengths)) for size in sizes[:-1])
    for step in plan.steps:
        assert sorted(n for part in step.parts for group in part for n in group) == list(range(step.first, step.last))


@given(cases())
def test_3_all_data_indices_have_equally_many_and_no_more_than_needed(case: Case) -> None:
    lengths, mesh, budget, plan = case
    for step in plan.steps:
        assert len(step.parts) == mesh.dp
        (count,) = {len(part) for part in step.parts}
        multiple = mesh.pp if mesh.vpp > 1 else 1
        most = max(needed(sorted(n for group in part for n in group), lengths, mesh, budget) for part in step.parts)
        assert count % multiple == 0 and count == -(-most // multiple) * multiple


@given(cases())
def test_4_only_a_sequence_alone_exceeds_the_budget(case: Case) -> None:
    lengths, mesh, budget, plan = case
    groups = [group for step in plan.steps for part in step.parts for group in part]
    assert all(len(group) <= 1 or cost(group, lengths, budget) <= budget.tokens * mesh.cp for group in groups)


@given(cases())
def test_5_loads_are_balanced(case: Case) -> None:
    lengths, _, budget, plan = case
    weigh = {"tokens": lambda n: lengths[n], "attention": lambda n: lengths[n] ** 2}.get(budget.balance)
    for step in plan.steps:
        owned = [sorted(n for group in part for n in group) for part in step.parts]
        if weigh is None:
            assert [n for part in owned for n in part] == list(range(step.first, step.last))
            counts = [len(part) for part in owned]
            assert counts == sorted(counts, reverse=True) and counts[0] - counts[-1] <= 1
        else:
            loads = [sum(map(weigh, part)) for part in owned]
            assert max(loads) - min(loads) <= max(map(weigh, range(step.first, step.last)))


@given(cases())
def test_6_the_first_micro_batch_shows_the_peak(case: Case) -> None:
    lengths, _, _, plan = case
    for part in [part for step in plan.steps for part in step.parts]:
        assert all(lengths[a] >= lengths[b] for group in part for a, b in pairwise(group))
        first = [lengths[group[0]] if group else -1 for group in part]
        assert first == sorted(first, reverse=True)


@given(cases())
def test_7_empty_only_where_every_sequence_is_alone(case: Case) -> None:
    _, _, _, plan = case
    for part in [part for step in plan.steps for part in step.parts]:
        assert all(part) or max(map(len, part)) <= 1


@given(cases())
def test_8_equal_arguments_give_equal_plans(case: Case) -> None:
    lengths, mesh, budget, plan = case
    assert schedule(lengths, mesh, budget) == plan
    whole = schedule(lengths, TrainMesh(), TokenBudget(budget.tokens))
    assert not lengths or [list(g) for g in whole.steps[0].parts[0]] == rectangles(lengths, budget.tokens)


def rectangles(lengths: list[int], limit: int) -> list[list[int]]:
    """What one rank always did: longest first, as many rows as the longest one leaves room for."""
    left, groups = sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)), []
    while left:
        rows = max(1, limit // lengths[left[0]]) if lengths[left[0]] else len(left)
        groups.append(left[:rows])
        left = left[rows:]
    return groups


@pytest.mark.parametrize(
    ("lengths", "mesh", "budget", "want"),
    [
        pytest.param([], TrainMesh(), TokenBudget(8), [], id="nothing"),
        pytest.param([4, 4, 4], TrainMesh(), TokenBudget(8), [[[(0, 1), (2,)]]], id="full-then-rest"),
        pytest.param([3, 100, 3], TrainMesh(), TokenBudget(8), [[[(1,), (0, 2)]]], id="one-too-long-goes-alone"),
        pytest.param([5, 5, 5, 5], TrainMesh(dp=2), TokenBudget(10), [[[(0, 2)], [(1, 3)]]], id="equal-lengths-alternate"),
        pytest.param([7], TrainMesh(dp=3), TokenBudget(8), [[[(0,)], [()], [()]]], id="idle-ranks-take-part"),
        pytest.param([9, 9, 1, 1], TrainMesh(dp=2), TokenBudget(9), [[[(0,), (2,)], [(1,), (3,)]]], id="long-and-short"),
        pytest.param([8, 2, 2, 2, 2], TrainMesh(dp=2), TokenBudget(4), [[[(0,), ()], [(1, 2), (3, 4)]]], id="counts-are-equal"),
        pytest.param([2, 2, 2], TrainMesh(pp=2, vpp=2), TokenBudget(8), [[[(0, 1), (2,)]]], id="split-for-the-pipeline-group"),
        pytest.param([6, 5, 3, 2], TrainMesh(), TokenBudget(8, layout="packed"), [[[(0, 3), (1, 2)]]], id="packed-first-fit"),
        pytest.param([3, 2, 2, 2], TrainMesh(dp=2), TokenBudget(9, balance="attention"), [[[(0,)], [(1, 2, 3)]]], id="by-attention"),
        pytest.param([4, 4], TrainMesh(cp=2), TokenBudget(4), [[[(0, 1)]]], id="context-ranks-share-a-sequence"),
        pytest.param([1, 1, 1], TrainMesh(), TokenBudget(9, global_batch=2), [[[(0, 1)]], [[(2,)]]], id="several-optimizer-steps"),
    ],
)
def test_plans_worked_out_by_hand(lengths: list[int], mesh: TrainMesh, budget: TokenBudget, want: list[list[list[MicroBatch]]]) -> None:
    assert [[list(part) for part in step.parts] for step in schedule(lengths, mesh, budget).steps] == want


def test_the_worked_example() -> None:
    plan = schedule([5, 3, 4, 2, 7, 1], TrainMesh(dp=2), TokenBudget(8, global_batch=4))
    assert [step.parts for step in plan.steps] == [(((0,), (3,)), ((2,), (1,))), (((4,),), ((5,),))]
    assert plan.micro_batches(0, 1) == ((2,), (1,))


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="tokens: got 0"):
        TokenBudget(0)
    with pytest.raises(ValueError, match="global_batch: got 0"):
        TokenBudget(1, 0)
    with pytest.raises(ValueError, match="smallest -1"):
        schedule([3, -1], TrainMesh(), TokenBudget(8))
