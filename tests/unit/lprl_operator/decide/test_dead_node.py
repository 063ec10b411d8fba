"""A node that dies while it pulls an image: its pod stays Pending and on its way out for ever, and is given up like any other."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from tests.unit.lprl_operator.decide.steps import advance, condition, look, status

from lprl_api.names import ExitCode
from lprl_operator.decide.observed import Key
from lprl_operator.places.kube.cache import Cache
from lprl_operator.places.kube.reader import Reader


class Nodes:
    """An API server that knows nodes: one of them is dead since a time, the others answer."""

    def __init__(self, dead, since):
        self.dead, self.since = dead, since

    def get(self, path, **_):
        ready = (
            {"status": "Unknown", "lastTransitionTime": f"{self.since:%Y-%m-%dT%H:%M:%SZ}"}
            if path.endswith(self.dead)
            else {"status": "True"}
        )
        return {"status": {"conditions": [{"type": "Ready", **ready}]}}


def with_nodes(world, dead):
    """Have the world's pods looked at as a live read does."""
    nodes: Any = Nodes(dead, world.now)
    reader, snapshot, collect = Reader(nodes, Cache()), world.snapshot, world._collect_pods

    def seen():
        found = snapshot()
        pods = tuple(replace(p, unreachable_since=None) for p in found.pods)
        reader._look_at_nodes(Key("rl", "toy"), pods, world.now)
        return reader.completed(Key("rl", "toy"), replace(found, pods=pods), ())

    def stays():
        left = [p for p in world.pods if p.node == dead and p.phase == "Pending"]
        world.pods = [p for p in world.pods if p not in left]
        collect()
        world.pods += [replace(p, deleting=True, unreachable_since=nodes.since) for p in left]

    world.snapshot, world._collect_pods = seen, stays


def test_the_next_attempt_starts_once_the_node_was_unreachable_for_long_enough(running, lib):
    world = running(failurePolicy={"backoffSeconds": 0, "unreachableNodeSeconds": 600})
    worker = next(p for p in world.pods if p.role == "worker")
    died = world.now
    world.change_pod(worker.name, phase="Pending", ray=None, ready=False, node="dead", deleting=True)
    with_nodes(world, "dead")
    world.exit_driver(world.head(), ExitCode.CRASH)
    for _ in range(20):
        look(world, lib)
        world.tick(29)
    look(world, lib)
    assert (world.now - died, status(world)["attempt"]) == (timedelta(seconds=580), 1), "it may still run"
    assert condition(world, "ClusterReady")["reason"] in ("WaitingForPodsGone", "NodeUnreachable")
    advance(world, lib, "Running")
    assert (status(world)["attempt"], status(world)["restartsUsed"]) == (2, 1)
