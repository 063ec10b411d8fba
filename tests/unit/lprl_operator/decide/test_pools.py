"""No GPU is taken while a warm pool that a tool names cannot give a sandbox; an attempt that runs is left alone."""

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, look, status

EPISODE = {
    "type": "tools",
    "tools": [{"name": "sum", "sandbox": {"warmPool": "python"}, "description": "Adds.", "parameters": {"type": "object"}}],
}


@pytest.fixture
def world(make_world, make_manifest):
    """A world whose pools are as `world.pools` says."""
    made = make_world(make_manifest(episode=EPISODE))
    made.pools = {}
    complete, live = made.observe, made.live_read

    def observe(key):
        return replace(complete(key), pools=made.pools)

    def live_read(key):
        document, seen = live(key)
        return document, replace(seen, pools=made.pools)

    made.observe, made.live_read = observe, live_read
    return made


def test_a_job_waits_for_its_pool_before_anything_is_made_and_goes_on_by_itself(world, lib):
    for _ in range(20):
        look(world, lib)
        world.tick()
    told = condition(world, "Inspected")
    assert (told["status"], told["reason"]) == ("False", "SandboxPoolNotReady")
    assert "spec.episode.tools[0].sandbox.warmPool: SandboxWarmPool python: is being looked at" in told["message"]
    world.pools = {"python": "there is none of that name in namespace default: make it, or name another one"}
    world.now += timedelta(seconds=60)
    look(world, lib)
    assert "SandboxWarmPool python: there is none of that name" in condition(world, "Inspected")["message"]
    assert status(world).get("attempt", 0) == 0 and not world.clusters
    world.pools = {"python": ""}
    advance(world, lib, "Running")
    assert condition(world, "Inspected")["status"] == "True"


def test_a_pool_that_runs_empty_is_no_matter_of_an_attempt_that_runs(world, lib):
    world.pools = {"python": ""}
    advance(world, lib, "Running")
    world.pools = {"python": "0 of 3 sandboxes are ready"}
    advance(world, lib, "Succeeded", ticks=200)


def test_a_place_without_pools_waits_for_none(world, lib):
    world.pools = None
    advance(world, lib, "Running")
