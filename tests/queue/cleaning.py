"""Workloads that go: finished ones that Kueue deletes, and those that somebody deletes by hand."""

from tests.control_plane.harness.world import World
from tests.queue.team import ONE, Team

HOLDS = {"hold_at": 3}


def finished(world: World) -> None:
    """Kueue deletes Workloads of what is finished: the job trains on, and another one uses the conversion."""
    team = Team(world)
    team.submit("first", HOLDS, steps=8)
    world.wait_phase("first", "Running")
    mine, made = team.workload("first")["metadata"]["uid"], {j["metadata"]["uid"] for j in world.of("Job")}
    world.wait("only the training has a Workload", lambda: [w["metadata"]["uid"] for w in team.workloads()] == [mine])
    kinds = ("Inspected", "Converted", "ClusterReady")
    assert [world.condition("first", kind)["status"] for kind in kinds] == ["True"] * len(kinds)
    assert {j["metadata"]["uid"] for j in world.of("Job")} == made, "no Job was made anew"
    team.submit("second")
    world.wait_phase("second", "Succeeded")
    team.finish("first")
    for name in ("first", "second"):
        team.uncharged(name, 1)


def by_hand(world: World) -> None:
    """Somebody deletes the Workload of what runs, then of what waits: Kueue makes another one, which queues as a new one does."""
    team = Team(world, cpu=ONE)
    team.submit("first", HOLDS, steps=8)
    world.wait_phase("first", "Running")
    team.submit("second", HOLDS)
    team.held("second", "Pending", "insufficient")
    before = team.workload("first")["metadata"]
    world.api.delete("Workload", world.namespace, before["name"])
    world.wait_phase("second", "Running")
    team.held("first", "Pending", "insufficient")
    waits = team.workload("first")["metadata"]
    assert waits["uid"] != before["uid"]
    attempt = world.status("first")["attempt"]
    world.api.delete("Workload", world.namespace, waits["name"])
    world.wait("another Workload", lambda: team.uid("first") not in (waits["uid"], ""))
    team.held("first", "Pending", "insufficient")
    assert world.status("first")["attempt"] == attempt
    team.finish("second")
    world.wait("the first is back", lambda: len(team.order()) == 3)
    found = team.finish("first")
    assert (found.get("restartsUsed", 0), found["cluster"], {f["reason"] for f in found["failures"]}) == (0, "first-a1", {"Evicted"})


def preparing(world: World) -> None:
    """The Workload of an inspection or conversion that runs is deleted: it is suspended, queues again, and goes on."""
    team = Team(world)
    team.submit("slow", source="e5" * 32, pods={"convert_hold": "yes"})
    world.wait_phase("slow", "Converting")
    world.wait("its pods run", lambda: [p for p in world.pods("convert") if p["status"].get("phase") == "Running"])
    before = team.conversion()["metadata"]
    world.api.delete("Workload", world.namespace, before["name"])
    world.wait("another Workload", lambda: any(_is_another(w["metadata"], before) for w in team.workloads()))
    world.release("convert")

    def ends() -> bool:
        world.release("convert")
        return bool(world.status("slow")["phase"] == "Succeeded")

    world.wait("it goes on", ends)
    team.uncharged("slow", 1)


def _is_another(found: dict[str, str], before: dict[str, str]) -> bool:
    return found["name"].startswith("job-lprl-convert") and found["uid"] != before["uid"]
