"""A whole life in a world that misbehaves: seeded pod outcomes, operator crashes between any two writes, stale caches."""

import pytest

from lprl_operator.controller import reconcile
from lprl_operator.places.cluster import Conflict

ENDED = ("Succeeded", "Failed")


def look(world, lib, crowded=False):
    """One reconcile; a crash or a conflict is simply tried again later."""
    try:
        return reconcile(world.cached_document(), world, world.now, lib.SETTINGS, crowded)
    except (lib.Crash, Conflict):
        return None


def settle(world, lib):
    """Reconcile without time passing until nothing is written: it must come to rest."""
    chaos, crashes = world.chaos, world.crashes
    world.chaos = world.crashes = False
    for _ in range(12):
        before = world.writes
        reconcile(world.cached_document(), world, world.now, lib.SETTINGS)
        if world.document is None or world.writes == before:
            break
    else:
        pytest.fail("status or children flap: twelve looks at an unchanged world and still writing")
    world.chaos, world.crashes = chaos, crashes


def live(world, lib, ticks=4000, crowded=False):
    phases = []
    for number in range(ticks):
        look(world, lib, crowded)
        status = (world.document or {}).get("status", {})
        if status.get("phase") and (not phases or phases[-1] != status["phase"]):
            phases.append(status["phase"])
        if number % 25 == 0:
            settle(world, lib)
        if status.get("phase") in ENDED and not world.clusters and not world.pods:
            return phases
        world.tick()
    pytest.fail(f"no end after {ticks} ticks: {phases[-5:]}, {status}")


def test_calm_life(make_world, make_manifest, lib):
    world = make_world(make_manifest())
    assert live(world, lib) == ["Inspecting", "Converting", "Provisioning", "Running", "Succeeded"]
    assert world.created_attempts == [1]
    status = world.document["status"]
    assert status["training"]["summary"] == "40/40"
    assert status["conversion"]["progress"] == "6/6"
    assert [e.reason for e in world.events if e.type == "Warning"] == []


def test_in_a_crowd_less_is_told_on_the_way_and_the_same_in_the_end(make_world, make_manifest, lib):
    calm, crowd = make_world(make_manifest()), make_world(make_manifest())
    live(calm, lib)
    live(crowd, lib, crowded=True)
    assert crowd.created_attempts == calm.created_attempts
    told = [{k: v for k, v in w.document["status"].items() if "ime" not in k and k != "conditions"} for w in (calm, crowd)]
    assert told[0] == told[1]
    assert crowd.writes < calm.writes


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_life_in_chaos(make_world, make_manifest, lib, seed, crowded):
    policy = {"maxRestarts": 3, "backoffSeconds": 5, "stallSeconds": 120, "refillSteps": 5}
    world = make_world(make_manifest(failurePolicy=policy), seed, chaos=True)
    phases = live(world, lib, crowded=crowded)
    assert world.created_attempts == sorted(set(world.created_attempts)), "an attempt is created once"
    if phases[-1] == "Succeeded":
        assert world.completed
    else:
        assert world.document["status"]["conditions"][-1]["reason"] == "RestartsExhausted"


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_suspend_and_resume_in_chaos(make_world, make_manifest, lib, seed, crowded):
    policy = {"maxRestarts": 1000, "backoffSeconds": 1, "stallSeconds": 60}
    world = make_world(make_manifest(failurePolicy=policy), seed, chaos=True)
    for number in range(500):
        look(world, lib, crowded)
        if world.random.random() < 0.02:
            world.document["spec"]["suspend"] = not world.document["spec"].get("suspend", False)
            meta = world.document["metadata"]
            meta["generation"] += 1
            meta["resourceVersion"] = str(int(meta["resourceVersion"]) + 1)
        if number % 25 == 0:
            settle(world, lib)
        status = world.document.get("status", {})
        if status.get("phase") == "Suspended":
            assert not [p for p in world.pods if p.alive and p.unreachable_since is None], "suspended holds no pods"
        world.tick()
    world.document["spec"]["suspend"] = False
    world.document["metadata"]["resourceVersion"] = str(int(world.document["metadata"]["resourceVersion"]) + 1)
    assert live(world, lib, crowded=crowded)[-1] == "Succeeded"


def test_driver_that_finished_while_the_operator_was_away_is_not_run_again(make_world, make_manifest, lib):
    world = make_world(make_manifest())
    while world.document.get("status", {}).get("phase") != "Running":
        look(world, lib)
        world.tick()
    for _ in range(200):
        world.tick()
    assert world.completed
    assert live(world, lib)[-1] == "Succeeded"
    assert world.created_attempts == [1]
