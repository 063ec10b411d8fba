"""No GPU is taken while a warm pool that a tool names cannot give a sandbox; an attempt that runs is left alone."""

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, look, status

from lprl_api.names import ExitCode

EPISODE = {
    "type": "tools",
    "tools": [{"name": "sum", "sandbox": {"warmPool": "python"}, "description": "Adds.", "parameters": {"type": "object"}}],
}


def with_pools(made):
    """Have a world's pools be as `pools` says."""
    made.pools = {}
    complete, live = made.observe, made.live_read

    def observe(key):
        return replace(complete(key), pools=made.pools)

    def live_read(key):
        document, seen = live(key)
        return document, replace(seen, pools=made.pools)

    made.observe, made.live_read = observe, live_read
    return made


@pytest.fixture
def world(make_world, make_manifest):
    """A world whose pools are as `world.pools` says."""
    return with_pools(make_world(make_manifest(episode=EPISODE)))


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


def test_a_queues_cluster_that_keeps_its_quota_waits_for_no_pool(queued, lib):
    """What is known of pools is from before it was admitted, or nothing after a restart of the operator."""
    world = queued(episode=EPISODE, failurePolicy={"backoffSeconds": 0})
    with_pools(world)
    world.pools = {"python": ""}
    advance(world, lib, "Running")
    world.pools = {}
    world.exit_driver(world.head(), ExitCode.CRASH)
    advance(world, lib, "Succeeded", ticks=200)
    assert (status(world)["attempt"], status(world)["restartsUsed"]) == (2, 1)


def test_a_restart_without_a_queue_waits_for_its_pool_while_its_cluster_rests(world, lib):
    world.pools = {"python": ""}
    advance(world, lib, "Running")
    world.pools = {"python": "0 of 3 sandboxes are ready"}
    world.exit_driver(world.head(), ExitCode.CRASH)
    for _ in range(40):
        look(world, lib)
        world.tick()
    (cluster,) = world.clusters.values()
    assert cluster.held and cluster.suspended and condition(world, "Inspected")["reason"] == "SandboxPoolNotReady"
    world.pools = {"python": ""}
    advance(world, lib, "Succeeded", ticks=200)
    assert status(world)["attempt"] == 2
