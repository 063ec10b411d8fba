"""Labels of queue and priority that are corrected after what they are on was made: what waits follows, what runs says when it does."""

import pytest
from tests.unit.lprl_operator.decide.steps import advance, look, noted, status

from lprl_api.names import LABEL_PRIORITY, LABEL_QUEUE
from lprl_operator.decide.actions import Relabel


def label(world, **labels):
    """`kubectl label --overwrite`: no new generation."""
    meta = world.document["metadata"]
    names = {"queue": LABEL_QUEUE, "priority": LABEL_PRIORITY}
    meta["labels"] = meta["labels"] | {names[k]: v for k, v in labels.items()}
    meta["resourceVersion"] = str(int(meta["resourceVersion"]) + 1)


def settle(world, lib, ticks=6):
    for _ in range(ticks):
        look(world, lib)
        world.tick()
    look(world, lib)


@pytest.fixture
def held(queued, lib):
    """A world whose RayCluster waits in queue `team`."""
    world = queued()
    world.full = True
    while not world.clusters:
        look(world, lib)
        world.tick()
    look(world, lib)
    return world


def test_a_held_raycluster_follows_its_priority_and_stays_the_same_one(held, lib):
    (before,) = held.clusters.values()
    label(held, queue="other", priority="urgent")
    settle(held, lib)
    (cluster,) = held.clusters.values()
    assert (cluster.queue_name, cluster.priority_class) == ("team", "urgent")
    assert (cluster.uid, status(held)["attempt"]) == (before.uid, 1), "no new attempt, no new Workload"
    writes = held.writes
    settle(held, lib, 2)
    assert held.writes == writes, "once"
    held.full = False
    advance(held, lib, "Succeeded")


def test_what_runs_follows_its_priority_and_says_when_it_moves(held, lib):
    held.full = False
    advance(held, lib, "Running")
    label(held, queue="other", priority="urgent")
    settle(held, lib, 2)
    (cluster,) = held.clusters.values()
    assert (cluster.queue_name, cluster.priority_class) == ("team", "urgent")
    held.document["spec"]["suspend"] = True
    advance(held, lib, "Suspended")
    held.document["spec"]["suspend"] = False
    advance(held, lib, "Running")
    (cluster,) = held.clusters.values()
    assert cluster.queue_name == "other"


@pytest.mark.parametrize("which", ["-inspect", "lprl-convert"])
def test_a_held_job_follows(queued, lib, which):
    world = queued()
    world._run_job = lambda job, run=world._run_job: None if which in job.name else run(job)
    while not any(which in n for n in world.jobs):
        look(world, lib)
        world.tick()
    name = next(n for n in world.jobs if which in n)
    world.change_job(name, suspended=True)
    label(world, queue="other")
    settle(world, lib, 2)
    assert world.jobs[name].queue_name == "other"


def test_a_shared_conversion_stays_in_the_queue_of_who_made_it(queued, lib):
    world = queued()
    world._run_job = lambda job, run=world._run_job: None if "lprl-convert" in job.name else run(job)
    while not any("lprl-convert" in n for n in world.jobs):
        look(world, lib)
        world.tick()
    name = next(n for n in world.jobs if "lprl-convert" in n)
    world.change_job(name, suspended=True, owner_uids=world.jobs[name].owner_uids | {"uid-other"})
    label(world, queue="other")
    settle(world, lib, 2)
    assert world.jobs[name].queue_name == "team"


def test_labels_taken_away_or_put_on_what_no_queue_knows_change_nothing(held, running, lib):
    held.document["metadata"]["labels"] = {}
    done = noted(held)
    settle(held, lib, 2)
    world = running()
    world.document["metadata"]["labels"] = {}
    label(world, queue="team", priority="urgent")
    done += noted(world)
    settle(world, lib, 2)
    assert not [a for a in done if isinstance(a, Relabel)]
    assert next(iter(world.clusters.values())).queue_name == ""
