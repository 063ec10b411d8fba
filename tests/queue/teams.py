"""Several teams: quotas of their own, and a pool that a cohort shares fairly."""

from tests.control_plane.harness.api import Document
from tests.control_plane.harness.world import JOB, World
from tests.queue.team import FULL, KUEUE, QUEUE, Team

HOLDS = {"hold_at": 3}
TRAININGS = 3
"""How many a shared pool has quota for."""
PREPARING = {"conversion": {"volume": "models", "parallelism": 2, "queueName": "prepare"}}


def independent(world: World) -> None:
    """Two ClusterQueues without a cohort: what one has free is nobody else's. A job that is to change its queue is told how."""
    team = Team(world, cpu=FULL)
    other, flavor = f"other-{world.namespace}", f"f-{world.namespace}"
    team.cluster_queue(other, flavor, cpu=FULL)
    team.local_queue("others", other)
    _prepare(team)
    team.submit("owner", HOLDS, steps=8, **PREPARING)
    world.wait_phase("owner", "Running")
    team.submit("waiter", **PREPARING)
    team.held("waiter", "Pending", "insufficient")
    team.submit("guest", HOLDS, queue="others", **PREPARING)
    world.wait_phase("guest", "Running")
    team.finish("guest")
    team.held("waiter", "Pending", "insufficient")
    team.finish("owner")
    world.wait_phase("waiter", "Succeeded")
    for name in ("owner", "guest", "waiter"):
        team.uncharged(name, 1)


def whole(world: World) -> None:
    """Neither conversion nor training is admitted in part, whatever an annotation of the job asks for: they wait for all of it."""
    team = Team(world, cpu="1")
    team.submit("gang", HOLDS, notes={f"{KUEUE}/job-min-parallelism": "1"}, source="d1" * 32, topology={"nodes": 2})
    team.says("gang", "queued: Pending", "insufficient quota")  # a pod of two would fit
    _counts(team.conversion(), 2)
    team.resize(team.queue, f"f-{world.namespace}", cpu="3", memory="512Gi")
    team.held("gang", "Pending", "insufficient quota")  # a worker of two would fit
    _counts(team.workload("gang"), 1, 2)
    team.resize(team.queue, f"f-{world.namespace}", cpu="64", memory="512Gi")
    world.wait_phase("gang", "Running")
    assert world.status("gang")["nodes"]["summary"] == "2/2"
    team.finish("gang")
    team.uncharged("gang", 1)


def _counts(workload: Document, *counts: int) -> None:
    sets = workload["spec"]["podSets"]
    assert [(s["count"], s.get("minCount")) for s in sets] == [(count, None) for count in counts], sets


def moved(world: World) -> None:
    """The queue of a job that waits or runs is another one by its label: that is told, and suspending and resuming takes it there."""
    team = Team(world, cpu=FULL)
    other = f"other-{world.namespace}"
    team.cluster_queue(other, f"f-{world.namespace}", cpu=FULL)
    team.local_queue("others", other)
    _prepare(team)
    team.submit("owner", HOLDS, steps=8, **PREPARING)
    world.wait_phase("owner", "Running")
    team.submit("waiter", HOLDS, steps=8, **PREPARING)
    team.held("waiter", "Pending", "insufficient")
    world.api.patch(JOB, world.namespace, "waiter", {"metadata": {"labels": {QUEUE: "others"}}})
    world.wait("it is told", lambda: "stays in queue team" in world.condition("waiter", "Validated")["message"])
    assert team.workload("waiter")["spec"]["queueName"] == "team"
    world.patch("waiter", suspend=True)
    world.wait_phase("waiter", "Suspended")
    world.patch("waiter", suspend=False)
    world.wait_phase("waiter", "Running")
    assert team.workload("waiter")["spec"]["queueName"] == "others"
    assert "queue" not in world.condition("waiter", "Validated")["message"]
    for name in ("owner", "waiter"):
        team.finish(name)
        team.uncharged(name, 1)


def _prepare(team: Team) -> None:
    """A queue for inspections and conversions, which are to preempt nobody."""
    name = f"prepare-{team.world.namespace}"
    team.cluster_queue(name, f"f-{team.world.namespace}", cpu="4", memory="64Gi")
    team.local_queue("prepare", name)


def weighted(world: World) -> None:
    """A pool for three trainings that two teams borrow from, one of double weight.

    While it is alone the team of single weight has all three. Each job of the other one then preempts one of it, up to two of three;
    what was preempted is charged nothing and comes back.
    """
    team = Team(world, cpu="0", memory="0")
    flavor, cohort = f"f-{world.namespace}", f"all-{world.namespace}"
    shared = {"cohortName": cohort, "preemption": {"reclaimWithinCohort": "Any", "withinClusterQueue": "LowerPriority"}}
    team.cluster_queue(f"pool-{world.namespace}", flavor, cpu=str(int(FULL) * TRAININGS), cohortName=cohort)
    for name, weight in (("single", "1"), ("double", "2")):
        team.cluster_queue(f"{name}-{world.namespace}", flavor, cpu="0", memory="0", fairSharing={"weight": weight}, **shared)
        team.local_queue(name, f"{name}-{world.namespace}")
    _prepare(team)
    mine = [f"single-{n}" for n in range(TRAININGS)]
    theirs = [f"double-{n}" for n in range(TRAININGS)]
    for name in mine:
        team.submit(name, HOLDS, steps=8, queue="single", **PREPARING)
        world.wait_phase(name, "Running")
    for name in theirs:
        team.submit(name, HOLDS, steps=8, queue="double", **PREPARING)
    world.wait("two of the team of double weight train", lambda: len(_training(team, theirs)) == 2)
    world.wait("one of the other team trains", lambda: len(_training(team, mine)) == 1)
    (waits,) = set(theirs) - set(_training(team, theirs))
    team.held(waits, "Pending")
    for name in set(mine) - set(_training(team, mine)):
        team.held(name, "Preempted")
    left = [*mine, *theirs]
    while left:
        for name in world.wait("one of them trains", lambda: _training(team, left)):
            team.finish(name)
            left.remove(name)
    preempted = [name for name in mine if world.status(name)["attempt"] > 1]
    assert len(preempted) >= 2
    for name in (*mine, *theirs):
        found = world.status(name)
        assert found.get("restartsUsed", 0) == 0 and {f["reason"] for f in found.get("failures", ())} <= {"Evicted"}, found


def _training(team: Team, jobs: list[str]) -> list[str]:
    return [name for name in jobs if team.world.status(name).get("phase") == "Running" and team.is_admitted(name)]
