"""One Workload for a job's life: who keeps the quota and who gives it, under a real Kueue with another job waiting for it."""

from tests.control_plane.harness.world import World
from tests.queue.team import FULL, ONE, Team

HOLDS = {"hold_at": 3}
CRASH = {"crash": {"attempts": [1], "step": 6, "code": 1, "message": "by chance"}}


def basic(world: World) -> None:
    """Queued, admitted, trained, and nothing left in the queue when the job is deleted."""
    team = Team(world)
    team.submit("one")
    world.wait_phase("one", "Succeeded")
    team.uncharged("one", 1)
    world.delete_all()
    world.wait("no Workload is left", lambda: not team.workloads())


def default_queue(world: World) -> None:
    """A LocalQueue named `default` takes jobs that name none."""
    team = Team(world, queue="default")
    team.submit("plain", queue=None, driver=HOLDS)
    world.wait_phase("plain", "Running")
    assert team.workload("plain")["spec"]["queueName"] == "default"
    team.finish("plain")
    team.uncharged("plain", 1)


def restarted(world: World) -> None:
    """A crash by chance: the job keeps its quota, its Workload and its RayCluster, and whoever waits goes on waiting."""
    team = Team(world, cpu=ONE)
    team.submit("first", HOLDS, steps=12)
    world.wait_phase("first", "Running")
    before = team.workload("first")["metadata"]["uid"]
    team.submit("second")
    team.held("second", "Pending", "insufficient")
    world.script("first", step_s=0.05, **CRASH)
    world.wait("attempt 2 of the first", lambda: ("first", 2) in team.order())
    assert team.workload("first")["metadata"]["uid"] == before
    team.finish("first")
    world.wait_phase("second", "Succeeded")
    assert team.order() == [("first", 1), ("first", 2), ("second", 1)]
    found = world.status("first")
    assert (found["attempt"], found["restartsUsed"], found["cluster"]) == (2, 1, "first-a1")


def preempted(world: World) -> None:
    """Preempted, with another job of its priority queued later: the preempted one is back first."""
    team = Team(world, cpu=ONE)
    team.submit("first", HOLDS, priority="low", steps=8)
    world.wait_phase("first", "Running")
    before = team.workload("first")["metadata"]["uid"]
    team.submit("later", priority="low")
    team.held("later", "Pending")
    team.submit("urgent", HOLDS, priority="high")
    team.held("first", "Preempted", "to accommodate a workload")
    world.wait_phase("urgent", "Running")
    team.finish("urgent")
    world.wait("the first is back", lambda: ("first", 2) in team.order())
    assert team.workload("first")["metadata"]["uid"] == before
    assert ("later", 1) not in team.order()
    team.finish("first")
    world.wait_phase("later", "Succeeded")
    team.uncharged("first", 2, "Evicted")
    assert team.order() == [("first", 1), ("urgent", 1), ("first", 2), ("later", 1)]


def suspended(world: World) -> None:
    """The user's suspension gives the quota, to a job that queued; resumed it queues again and nothing is repeated.

    What is suspended while it is queued never ran: it is not told as running, and uses no attempt up.
    """
    team = Team(world, cpu=ONE)
    team.submit("owner", HOLDS, steps=8)
    world.wait_phase("owner", "Running")
    team.submit("waiter")
    team.held("waiter", "Pending")
    world.patch("waiter", suspend=True)
    world.wait_phase("waiter", "Suspended")
    assert "Running" not in world.timeline["waiter"], world.timeline["waiter"]
    world.patch("owner", suspend=True)
    world.wait_phase("owner", "Suspended")
    world.patch("waiter", suspend=False)
    world.wait_phase("waiter", "Succeeded")
    world.patch("owner", suspend=False)
    world.wait("the owner is back", lambda: ("owner", 2) in team.order())
    team.finish("owner")
    team.uncharged("owner", 2)
    team.uncharged("waiter", 1)


def corrected(world: World) -> None:
    """Edited while it is queued: a new RayCluster, so another Workload, and still the same attempt: nothing ran."""
    team = Team(world, cpu=ONE)
    team.submit("owner", HOLDS)
    world.wait_phase("owner", "Running")
    team.submit("waiter")
    team.held("waiter", "Pending", "insufficient")
    before = team.uid("waiter")
    world.patch("waiter", podTemplate={"env": [{"name": "A", "value": "b"}]})
    world.wait("another Workload", lambda: team.uid("waiter") not in (before, ""))
    team.held("waiter", "Pending", "insufficient")
    assert world.status("waiter")["cluster"] == "waiter-a1"
    team.finish("owner")
    world.wait_phase("waiter", "Succeeded")
    team.uncharged("waiter", 1)


def reclaimed(world: World) -> None:
    """Two teams of a cohort: what one borrowed the other takes back, and the borrower goes on when it is free again."""
    team = Team(world, cpu=FULL)
    flavor, cohort = f"f-{world.namespace}", {"cohortName": f"all-{world.namespace}"}
    reclaim = {"preemption": {"reclaimWithinCohort": "Any", "withinClusterQueue": "LowerPriority"}}
    team.api.patch("ClusterQueue", None, team.queue, {"spec": {**cohort, **reclaim}})
    team.cluster_queue(f"cq2-{world.namespace}", flavor, cpu=FULL, **cohort)
    team.local_queue("borrowers", f"cq2-{world.namespace}")
    team.submit("own", HOLDS, queue="borrowers", steps=8)
    world.wait_phase("own", "Running")
    team.submit("borrower", HOLDS, queue="borrowers", steps=8)
    world.wait_phase("borrower", "Running")
    team.submit("lender", HOLDS)
    world.wait_phase("lender", "Running")
    borrowers = ("own", "borrower")
    evicted = next(name for name in borrowers if world.status(name)["attempt"] > 1)
    before = team.workload(evicted)["metadata"]["uid"]
    team.held(evicted, "Preempted")
    assert team.workload(evicted)["metadata"]["uid"] == before
    team.finish("lender")
    for name in borrowers:
        team.finish(name)
    found = world.status(evicted)
    # Once for the lender's training, and perhaps before for its inspection and conversion.
    assert (found["restartsUsed"], {f["reason"] for f in found["failures"]}) == (0, {"Evicted"})
