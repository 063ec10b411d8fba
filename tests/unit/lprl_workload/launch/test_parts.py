"""What a group sends its ranks, and that answers find their way back."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lprl_workload.episode import BatchRef, EpisodeRef
from lprl_workload.launch.parts import arrays_of, in_order, split, work_of
from lprl_workload.rl.groups import Update
from lprl_workload.train.advantage import Rule
from lprl_workload.train.mesh import TrainMesh
from lprl_workload.train.rank import nested, share_of
from lprl_workload.train.step_plan import TokenBudget, schedule


def view(n: int, tokens: int) -> EpisodeRef:
    return EpisodeRef(n, n, 0, 1, 1 + tokens, tokens, 0, 0, "stop", ref=f"episode {n}")


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.booleans(), st.booleans(), st.integers(1, 3), st.integers(1, 2))
def test_every_rank_gets_what_its_plan_says_and_answers_come_back_in_order(
    lengths: list[int], has_old: bool, has_reference: bool, dp: int, tp: int
) -> None:
    batch: Any = [view(n, tokens) for n, tokens in enumerate(lengths)]
    rows = [[f"{kind} {n}" for n in range(len(lengths))] if has else None for kind, has in (("old", has_old), ("ref", has_reference))]
    batch = BatchRef(tuple(batch), *(None if row is None else tuple(row) for row in rows))
    plan = schedule(batch.lengths, TrainMesh(dp=dp, tp=tp), TokenBudget(12, 5))
    update = Update(batch, tuple(float(n) for n in range(len(lengths))), Rule("level"), plan)
    for step, whole in enumerate(plan.steps):
        answers: dict[int, str] = {}
        for rank in range(plan.mesh.world):
            share = share_of(plan, step, rank)
            work = work_of(update, step, share)
            episodes, old, reference = split(arrays_of(batch, share.numbers), len(share.numbers), work)
            assert list(episodes) == [f"episode {n}" for n in share.numbers] and list(work.values) == list(map(float, share.numbers))
            assert list(old) == ([f"old {n}" for n in share.numbers] if has_old else [])
            assert list(reference) == ([f"ref {n}" for n in share.numbers] if has_reference else [])
            assert [tuple(part) for part in nested(share.numbers, share.sizes)] == list(plan.micro_batches(step, rank))
            assert (work.global_samples, work.global_tokens) == (whole.last - whole.first, sum(lengths[whole.first : whole.last]))
            answers.update(zip(share.numbers, episodes, strict=True))
        numbers = [n - whole.first for n in answers]
        assert in_order(numbers, list(answers.values())) == [f"episode {n}" for n in range(whole.first, whole.last)]


@pytest.mark.parametrize(("numbers", "answers"), [([1, 0], ["b"]), ([0], ["a", "b"]), ([0, 2], ["a", "c"]), ([0, 0], ["a", "a"])])
def test_a_sequence_without_an_answer_or_with_two_is_refused_instead_of_shifting_the_others(numbers: list[int], answers: list[str]) -> None:
    with pytest.raises(ValueError, match="needs one to each"):
        in_order(numbers, answers)


def test_a_stage_between_runs_as_many_micro_batches_without_data() -> None:
    plan = schedule([4, 4, 4], TrainMesh(pp=3), TokenBudget(4))
    assert [share_of(plan, 0, rank).sizes for rank in range(3)] == [(1, 1, 1), (0, 0, 0), (1, 1, 1)]
    assert share_of(plan, 0, 1).numbers == ()
