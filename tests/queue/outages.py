"""Kueue is killed and comes back: its webhooks refuse what is made or changed meanwhile, which is told and tried again; nothing fails.

They are asked about changes of pods too, so scripts of simulated drivers cannot be changed while it is dead.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Barrier
from typing import Any

from tests.control_plane.harness.plane import ControlPlane
from tests.control_plane.harness.world import END_S, JOB, World
from tests.queue.team import ONE, Team

HOLDS = {"hold_at": 3}
WEBHOOK_DOWN = "failed calling webhook"


class Outage:
    """One outage of Kueue that several scenarios share: it begins and ends when all of them are ready for that."""

    def __init__(self, plane: ControlPlane, scenarios: int) -> None:
        self._ready = Barrier(scenarios)
        self._down = Barrier(scenarios, lambda: plane.kill("kueue"))
        self._up = Barrier(scenarios, lambda: plane.up("--kuberay", "--kueue"))

    def all_ready(self) -> None:
        """Wait for the others."""
        self._ready.wait(END_S)

    @contextmanager
    def lasts(self) -> Iterator[None]:
        """Have Kueue dead from the beginning of the block to its end."""
        self._down.wait(END_S)
        yield
        self._up.wait(END_S)

    def abort(self) -> None:
        """Have nobody wait for a scenario that failed."""
        for barrier in (self._ready, self._down, self._up):
            barrier.abort()


def sharing(outage: Outage, scenario: Callable[[World, Outage], None]) -> Callable[[World], None]:
    """A scenario that takes its part in an outage."""

    def run(world: World) -> None:
        try:
            scenario(world, outage)
        except BaseException:
            outage.abort()
            raise

    return run


def behind(team: Team, job: str, waiter: str, **more: Any) -> None:
    """Add a job that waits for the quota of another one, which runs then; it is inspected while that one starts."""
    team.world.wait(f"{job} queues", lambda: team.uid(job))
    team.submit(waiter, **more)
    team.world.wait_phase(job, "Running")
    team.held(waiter, "Pending", "insufficient")


def queued(world: World, outage: Outage) -> None:
    """A job waits; the owner of the quota is deleted meanwhile: it has its turn when Kueue is back."""
    team = Team(world, cpu=ONE)
    team.submit("owner", HOLDS)
    behind(team, "owner", "waiter")
    uid = team.workload("waiter")["metadata"]["uid"]
    outage.all_ready()
    with outage.lasts():
        world.api.delete(JOB, world.namespace, "owner")
        world.wait_gone("RayCluster", "owner-a1")
        assert team.workload("waiter")["metadata"]["uid"] == uid
    world.wait_phase("waiter", "Succeeded")
    team.uncharged("waiter", 1)


def running(world: World, outage: Outage) -> None:
    """A job trains on through it."""
    team = Team(world)
    team.submit("calm", {"step_s": 0.5}, steps=4000)
    world.wait_phase("calm", "Running")
    uid = team.workload("calm")["metadata"]["uid"]
    outage.all_ready()
    with outage.lasts():
        before = world.status("calm")["training"]["step"]
        world.wait("it trains on", lambda: world.status("calm")["training"]["step"] > before + 2)
    later = world.status("calm")["training"]["step"]
    world.wait("and on", lambda: world.status("calm")["training"]["step"] > later + 2)
    assert team.workload("calm")["metadata"]["uid"] == uid and team.is_admitted("calm")
    team.uncharged("calm", 1)


def restarted(world: World, outage: Outage) -> None:
    """A head is lost meanwhile: its RayCluster cannot be written to, that is said, and it restarts there when it can."""
    team = Team(world, cpu=ONE)
    team.submit("lost", HOLDS, steps=8)
    behind(team, "lost", "waiter")
    uid = team.workload("lost")["metadata"]["uid"]
    outage.all_ready()
    with outage.lasts():
        (head,) = world.pods("head")
        world.api.delete("Pod", world.namespace, head["metadata"]["name"])
        team.says("lost", "refused, trying again", WEBHOOK_DOWN)
    world.wait("attempt 2", lambda: ("lost", 2) in team.order())
    assert team.workload("lost")["metadata"]["uid"] == uid
    found = team.finish("lost")
    assert (found["restartsUsed"], found["cluster"], [f["reason"] for f in found["failures"]]) == (1, "lost-a1", ["HeadLost"])
    world.wait_phase("waiter", "Succeeded")


def evicted(world: World, outage: Outage) -> None:
    """Kueue dies when it has just decided to evict: it goes on with that, and the preempted job is back in its place."""
    team = Team(world, cpu=ONE)
    team.submit("first", HOLDS, priority="low", steps=8)
    behind(team, "first", "later", priority="low")
    mine = team.workload("first")["metadata"]
    outage.all_ready()
    team.submit("urgent", HOLDS, priority="high")

    def is_evicted() -> bool:
        found = world.api.get("Workload", world.namespace, mine["name"])
        return any(c["type"] == "Evicted" and c["status"] == "True" for c in found["status"]["conditions"])

    world.wait("its eviction has begun", is_evicted, poll_s=0.05)
    with outage.lasts():
        pass
    world.wait_phase("urgent", "Running")
    team.held("first", "Preempted")
    team.finish("urgent")
    world.wait("the first is back", lambda: ("first", 2) in team.order())
    assert team.workload("first")["metadata"]["uid"] == mine["uid"]
    team.finish("first")
    world.wait_phase("later", "Succeeded")
    team.uncharged("first", 2, "Evicted")
    assert team.order() == [("first", 1), ("urgent", 1), ("first", 2), ("later", 1)]


def refused(world: World, outage: Outage) -> None:
    """Neither a Job nor a RayCluster can be made meanwhile: both jobs say so, wait, and go on."""
    team = Team(world)
    team.submit("resumed", HOLDS, steps=8)
    world.wait_phase("resumed", "Running")
    world.patch("resumed", suspend=True)
    world.wait_phase("resumed", "Suspended")
    outage.all_ready()
    with outage.lasts():
        world.patch("resumed", suspend=False)
        team.submit("newcomer", source="d4" * 32)
        team.says("newcomer", "Job newcomer-inspect refused, trying again", WEBHOOK_DOWN)
        team.says("resumed", "RayCluster resumed-a2 refused, trying again", WEBHOOK_DOWN)
    world.wait("the newcomer is inspected", lambda: world.condition("newcomer", "Inspected").get("status") == "True")
    world.wait("the other one trains", lambda: ("resumed", 2) in team.order())
    team.finish("resumed")
    team.uncharged("resumed", 2)
    assert not world.status("newcomer").get("failures")


SCENARIOS = (queued, running, restarted, evicted, refused)
