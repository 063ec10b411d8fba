"""What an administrator says by Kueue's means holds, is told in Kueue's words, and charges nobody."""

from tests.control_plane.harness.world import World
from tests.queue.team import FULL, ONE, PRIORITIES, TIME_LIMIT, Team

HOLDS = {"hold_at": 3}
LIMIT_S = "60"
"""Long enough for a first driver to come up and to crash, also on a slow machine."""
TOO_LITTLE = "> maximum capacity"


def never(world: World) -> None:
    """A job that fits no quota says so in Kueue's words."""
    team = Team(world, cpu="3", memory="6Gi")
    team.submit("big")
    team.held("big", "Pending", TOO_LITTLE)
    team.uncharged("big", 1)
    world.wait("its event, which follows its status", lambda: world.events("big")["Queued"] >= 1)


def deactivated(world: World) -> None:
    """Stopped by `spec.active: false` until somebody sets it active again."""
    team = Team(world)
    team.submit("stopped", HOLDS, steps=8)
    world.wait_phase("stopped", "Running")
    name = team.workload("stopped")["metadata"]["name"]
    team.activate(name, False)
    team.held("stopped", "Deactivated")
    assert [w["metadata"]["name"] for w in team.workloads() if w["spec"].get("active") is False] == [name]
    assert team.order() == [("stopped", 1)]
    team.activate(name, True)
    world.wait("it goes on", lambda: ("stopped", 2) in team.order())
    team.finish("stopped")
    team.uncharged("stopped", 2, "Evicted")


def drained(world: World) -> None:
    """A ClusterQueue that is drained evicts; back, the job goes on."""
    team = Team(world)
    team.submit("drained", HOLDS, steps=8)
    world.wait_phase("drained", "Running")
    team.stop("HoldAndDrain")
    team.held("drained", "ClusterQueue")
    team.stop("None")
    world.wait("it goes on", lambda: ("drained", 2) in team.order())
    team.finish("drained")
    team.uncharged("drained", 2, "Evicted")


def limited(world: World) -> None:
    """`max-exec-time-seconds` counts over the job's life, whatever happens in it, and ends the job with Kueue's reason."""
    team = Team(world)
    crash = {"attempts": [1], "step": 1, "code": 1, "message": "by chance"}
    team.submit("limited", {"crash": crash, "hold_at": 2}, steps=400, labels={TIME_LIMIT: LIMIT_S})
    found = world.wait_phase("limited", "Failed")
    told = [(f["attempt"], f["reason"]) for f in found["failures"]]
    assert (told, found["restartsUsed"]) == ([(1, "DriverCrashed"), (2, "ExecutionTimeExceeded")], 1)
    world.wait("its RayCluster is gone", lambda: not world.of("RayCluster"))


def busy(world: World) -> None:
    """All quota is used: a newcomer's inspection says why it waits, and one with a queue of its own for that is inspected at once."""
    team = Team(world, cpu=FULL, memory="100Gi")
    team.submit("owner", HOLDS)
    world.wait_phase("owner", "Running")
    team.submit("newcomer", source="c1" * 32)
    team.says("newcomer", "queued: Pending", "insufficient")
    team.cluster_queue(f"small-{world.namespace}", f"f-{world.namespace}", cpu="2", memory="4Gi")
    team.local_queue("small", f"small-{world.namespace}")
    team.submit("prepared", source="c2" * 32, conversion={"volume": "models", "parallelism": 2, "queueName": "small"})
    team.held("prepared", "Pending", "insufficient")
    assert world.condition("prepared", "Converted")["status"] == "True"
    team.finish("owner")
    for name in ("newcomer", "prepared"):
        world.wait_phase(name, "Succeeded")


def converting(world: World) -> None:
    """A conversion is preempted in the middle, and goes on."""
    team = Team(world, cpu=FULL, memory="100Gi")
    team.submit("slow", priority="low", source="f7" * 32, pods={"convert_hold": "yes"})
    world.wait_phase("slow", "Converting")
    world.wait("its pods run", lambda: [p for p in world.pods("convert") if p["status"].get("phase") == "Running"])
    team.submit("urgent", HOLDS, priority="high", source="f8" * 32)
    world.wait_phase("urgent", "Running")
    team.says("slow", "Preempted")
    team.finish("urgent")
    world.wait("its pods are back", lambda: [p for p in world.pods("convert") if p["status"].get("phase") == "Running"])
    world.release("convert")
    world.wait_phase("slow", "Succeeded")
    team.uncharged("slow", 1)


def shared(world: World) -> None:
    """A conversion that two jobs need waits with the priority of the urgent one, whoever made it first."""
    team = Team(world)
    small = f"small-{world.namespace}"
    team.cluster_queue(small, f"f-{world.namespace}", cpu="1", memory="4Gi")
    team.local_queue("small", small)
    wish = {"conversion": {"volume": "models", "parallelism": 2, "queueName": "small"}, "source": "c3" * 32}
    team.submit("patient", priority="low", **wish)
    team.says("patient", "queued: Pending", TOO_LITTLE)  # its inspection fits, two pods of the conversion do not
    assert team.conversion()["spec"]["priority"] == PRIORITIES["low"]
    team.submit("urgent", priority="high", **wish)
    world.wait("the conversion is urgent", lambda: team.conversion()["spec"]["priority"] == PRIORITIES["high"])
    team.resize(small, f"f-{world.namespace}", cpu="2", memory="4Gi")
    for name in ("urgent", "patient"):
        world.wait_phase(name, "Succeeded")
        team.uncharged(name, 1)


def one_after_the_other(world: World) -> None:
    """Quota for one: jobs train in the order in which they came."""
    team = Team(world, cpu=ONE)
    for number in (1, 2, 3):
        team.submit(f"job-{number}", steps=3)
        world.wait(f"job-{number} has its place", lambda n=number: world.status(f"job-{n}").get("attempt", 0) == 1)  # type: ignore[misc]
    for number in (1, 2, 3):
        world.wait_phase(f"job-{number}", "Succeeded")
    assert team.order() == [(f"job-{n}", 1) for n in (1, 2, 3)]
