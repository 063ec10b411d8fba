"""A shared conversion that waits in a queue has the highest priority of those who wait for it."""

import pytest
from tests.unit.lprl_operator.decide.steps import advance, look

from lprl_api.names import LABEL_PRIORITY, LABEL_QUEUE
from lprl_operator.decide.actions import Create, Raise

RANKS = {"low": 10, "middle": 500, "high": 1000}


@pytest.fixture
def converting(make_world, make_manifest, lib):
    """Factory: a world whose job of this class joined a conversion that another job made and a queue holds."""

    def make(mine, theirs, ranks=RANKS, rank=None, suspended=True):
        document = make_manifest()
        document["metadata"]["labels"] = {LABEL_QUEUE: "team", **({LABEL_PRIORITY: mine} if mine else {})}
        world = make_world(document)
        world._run_job = lambda job, run=world._run_job: run(job) if job.name.endswith("-inspect") else None
        advance(world, lib, "Converting")
        (name,) = (n for n in world.jobs if n.startswith("lprl-convert"))
        rank = RANKS.get(theirs, 0) if rank is None else rank
        owners = world.jobs[name].owner_uids | {"uid-other"}
        world.change_job(name, owner_uids=owners, suspended=suspended, priority_class=theirs, priority=rank, ranks=ranks)
        return world, name

    return make


def raises(world):
    found, apply = [], world.apply

    def note(actions):
        found.extend(a for a in actions if isinstance(a, Raise))
        apply(actions)

    world.apply = note
    return found


@pytest.mark.parametrize(("mine", "theirs"), [("high", "low"), ("high", "middle"), ("middle", "low"), ("high", "")])
def test_who_ranks_higher_raises_it_once(converting, lib, mine, theirs):
    world, name = converting(mine, theirs)
    done = raises(world)
    look(world, lib)
    look(world, lib)
    assert [(a.ref.name, a.priority_class) for a in done] == [(name, mine)]
    assert world.jobs[name].priority_class == mine


@pytest.mark.parametrize(("mine", "theirs"), [("low", "high"), ("low", "low"), ("", "low"), ("", "")])
def test_nobody_lowers_it(converting, lib, mine, theirs):
    world, name = converting(mine, theirs)
    done = raises(world)
    look(world, lib)
    assert not done and world.jobs[name].priority_class == theirs


def test_a_label_that_the_queue_has_not_followed_yet_counts(converting, lib):
    """Another job raised it a moment ago, and the list of Workloads is older."""
    world, name = converting("middle", "high", rank=10)
    done = raises(world)
    look(world, lib)
    assert not done and world.jobs[name].priority_class == "high"


@pytest.mark.parametrize("ranks", [{}, {"low": 10}, {"high": 1000}])
def test_what_is_not_known_is_not_compared(converting, lib, ranks):
    world, _ = converting("high", "low", ranks=ranks)
    done = raises(world)
    look(world, lib)
    assert not done


def test_what_runs_is_left_alone(converting, lib):
    world, _ = converting("high", "low", suspended=False)
    done = raises(world)
    look(world, lib)
    assert not done


def test_a_job_that_changed_meanwhile_is_looked_at_again(converting, lib):
    world, name = converting("middle", "low")
    apply, late = world.apply, []

    def another(actions):
        if any(isinstance(a, Raise) for a in actions):
            late.append(True)
            world.change_job(name, priority_class="high")
        apply(actions)

    world.apply = another
    look(world, lib)
    assert late == [True] and world.jobs[name].priority_class == "high"


def test_the_finalise_job_has_the_priority_that_the_conversion_came_to(converting, lib):
    world, name = converting("low", "high")
    job = world.jobs[name]
    world.change_job(name, suspended=False, completed=frozenset(range(job.completions)), finished="Complete")
    made, apply = [], world.apply

    def note(actions):
        made.extend(a.document for a in actions if isinstance(a, Create) and a.document["kind"] == "Job")
        apply(actions)

    world.apply = note
    look(world, lib)
    assert [(d["metadata"]["name"].startswith("lprl-finalise"), d["metadata"]["labels"][LABEL_PRIORITY]) for d in made] == [(True, "high")]


def test_a_finalise_job_that_waits_is_raised_too(converting, lib):
    world, name = converting("high", "low")
    job = world.jobs[name]
    world.change_job(name, suspended=False, completed=frozenset(range(job.completions)), finished="Complete")
    look(world, lib)
    final = next(n for n in world.jobs if n.startswith("lprl-finalise"))
    world.change_job(final, suspended=True, priority_class="low", priority=10, ranks=RANKS)
    look(world, lib)
    assert world.jobs[final].priority_class == "high"
