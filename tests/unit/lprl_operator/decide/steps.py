"""How tests move a world on and read what is said of its job."""

import pytest

from lprl_operator.controller import reconcile
from lprl_operator.decide.actions import Create, Delete, HandOver


def look(world, lib, times=8):
    """Reconcile without time passing until nothing more is written."""
    for _ in range(times):
        before = world.writes
        reconcile(world.cached_document(), world, world.now, lib.SETTINGS)
        if world.document is None or world.writes == before:
            return
    pytest.fail("no rest")


def status(world):
    return world.document["status"]


def condition(world, kind):
    return next(c for c in status(world)["conditions"] if c["type"] == kind)


def edit(world, **spec):
    world.document["spec"] |= spec
    meta = world.document["metadata"]
    meta |= {"generation": meta["generation"] + 1, "resourceVersion": str(int(meta["resourceVersion"]) + 1)}


def advance(world, lib, phase, ticks=60):
    for _ in range(ticks):
        look(world, lib)
        if status(world)["phase"] == phase:
            return world
        world.tick()
    pytest.fail(f"stays {status(world)['phase']}: {status(world)['message']}")


def noted(world):
    """Have the world note what is done to its RayCluster."""
    found, apply = [], world.apply

    def note(actions):
        found.extend(a for a in actions if isinstance(a, HandOver) or (isinstance(a, Create | Delete) and "RayCluster" in str(a)))
        apply(actions)

    world.apply = note
    return found
