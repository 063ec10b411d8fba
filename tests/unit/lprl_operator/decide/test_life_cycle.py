"""Every transition and every row of the failure table, each as one step of a world that is otherwise calm."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, look, status

from lprl_api.names import ExitCode
from lprl_operator.controller import reconcile
from lprl_operator.decide.observed import ContainerState

DRIVER_ENDS = [
    pytest.param(0, "", "", "Succeeded", "Succeeded", 0, id="finished"),
    pytest.param(ExitCode.USER_ERROR, "", "", "Failed", "UserError", 0, id="user-error"),
    pytest.param(ExitCode.STORAGE_FULL, "", "", "Failed", "StorageFull", 0, id="storage-full"),
    pytest.param(ExitCode.SUSPENDED, "", "", "Restarting", "WaitingForPodsGone", 0, id="stopped-though-nobody-asked-any-more"),
    pytest.param(ExitCode.FENCED, "", "", "Restarting", "WaitingForPodsGone", 1, id="fenced"),
    pytest.param(ExitCode.TRAINER_LOST, "", "", "Restarting", "WaitingForPodsGone", 1, id="trainer-lost"),
    pytest.param(ExitCode.CRASH, "", "", "Restarting", "WaitingForPodsGone", 1, id="crash"),
    pytest.param(137, "OOMKilled", "", "Restarting", "WaitingForPodsGone", 1, id="out-of-memory"),
    pytest.param(143, "Error", "PreemptionByScheduler", "Restarting", "WaitingForPodsGone", 0, id="preempted"),
]


@pytest.mark.parametrize(("code", "reason", "disruption", "phase", "why", "charged"), DRIVER_ENDS)
def test_driver_ends(running, lib, code, reason, disruption, phase, why, charged):
    world = running()
    head = world.head()
    world.change_pod(head.name, disruption=disruption)
    world.exit_driver(world.head(), code, json.dumps({"reason": "X", "message": "the cause"}), reason)
    look(world, lib)
    assert status(world)["phase"] == phase
    assert status(world)["restartsUsed"] == charged
    if phase == "Restarting":
        assert condition(world, "ClusterReady")["reason"] == why
        assert len(status(world)["failures"]) == 1, "a new attempt has a history, charged or not"
    else:
        decisive = condition(world, "Complete" if phase == "Succeeded" else "Failed")
        assert (decisive["status"], decisive["reason"]) == ("True", why)
        assert "the cause" in decisive["message"]
    released = [(c.deleting, c.held) for c in world.clusters.values()]
    assert released == [(False, True) if phase == "Restarting" else (True, False)], "its pods go; the cluster stays for the next attempt"


def test_a_restart_waits_for_pods_then_for_the_backoff_and_doubles_it(running, lib):
    world = running()
    world.exit_driver(world.head(), 1)
    look(world, lib)
    first = world.now
    advance(world, lib, "Running", 40)
    assert world.created_attempts == [1, 2]
    assert (world.now - first).total_seconds() >= 60
    assert status(world)["attempt"] == 2
    assert not [m for m in world.config_maps if m == "toy-a1-progress"], "what attempt 1 left is removed"
    world.steps[0] = 3
    world.exit_driver(world.head(), 1)
    look(world, lib)
    not_before = status(world)["restartNotBefore"]
    assert not_before == (world.now + timedelta(seconds=120)).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_budget_is_spent_without_progress_and_refilled_by_it(running, lib):
    world = running(failurePolicy={"maxRestarts": 1, "refillSteps": 10, "backoffSeconds": 1})
    world.exit_driver(world.head(), 1)
    advance(world, lib, "Running", 40)
    world.steps[0] = 20
    world.tick()
    look(world, lib)
    world.exit_driver(world.head(), 1)
    look(world, lib)
    assert (status(world)["phase"], status(world)["restartsUsed"]) == ("Restarting", 1), "20 steps refilled the budget"
    world.steps[0] = 20
    advance(world, lib, "Running", 40)
    world.exit_driver(world.head(), 1)
    look(world, lib)
    assert status(world)["phase"] == "Failed"
    assert condition(world, "Failed")["reason"] == "RestartsExhausted"
    assert [f["reason"] for f in status(world)["failures"]] == ["DriverCrashed", "DriverCrashed", "RestartsExhausted"]


def test_a_fenced_driver_is_followed_by_a_number_above_the_fence(running, lib):
    world = running(failurePolicy={"backoffSeconds": 1})
    message = {"reason": "Fenced", "message": "another attempt owns this folder", "ownerAttempt": 7}
    world.exit_driver(world.head(), ExitCode.FENCED, json.dumps(message))
    advance(world, lib, "Running", 40)
    assert world.created_attempts == [1, 8]


def lost_head(world):
    world.pods = [p for p in world.pods if p.role != "head"]
    world.change_cluster("toy-a1", head_ready=False, head_reason="HeadPodNotFound")


def ray_ended(world):
    world.change_pod(world.head().name, ray=ContainerState("terminated", "Error", "", 1))


def ray_out_of_memory(world):
    world.change_pod(world.head().name, ray=ContainerState("terminated", "OOMKilled", "", 137))


def head_evicted(world):
    world.change_pod(world.head().name, phase="Failed", disruption="EvictionByEvictionAPI", driver=None, ray=None)


def queue_eviction(world):
    world.change_cluster("toy-a1", suspended=True)


def cluster_deleted(world):
    world.change_cluster("toy-a1", deleting=True)


def cluster_gone(world):
    del world.clusters["toy-a1"]


def node_dead(world):
    world.change_pod(world.head().name, unreachable_since=world.now - timedelta(seconds=601))


LOSSES = [
    pytest.param(lost_head, "HeadLost", 1, id="head-gone"),
    pytest.param(ray_ended, "HeadLost", 1, id="ray-ended"),
    pytest.param(ray_out_of_memory, "OutOfMemory", 1, id="ray-out-of-memory"),
    pytest.param(head_evicted, "Evicted", 0, id="head-evicted"),
    pytest.param(queue_eviction, "Evicted", 0, id="queue-eviction"),
    pytest.param(cluster_deleted, "ClusterDeleted", 1, id="cluster-being-deleted"),
    pytest.param(cluster_gone, "ClusterDeleted", 1, id="cluster-gone"),
    pytest.param(node_dead, "HeadLost", 1, id="node-unreachable-too-long"),
]


@pytest.mark.parametrize(("happens", "reason", "charged"), LOSSES)
def test_losses_end_the_attempt(running, lib, happens, reason, charged):
    world = running()
    happens(world)
    reconcile(world.cached_document(), world, world.now, lib.SETTINGS)
    assert condition(world, "Progressing")["message"].startswith(reason)
    assert status(world)["restartsUsed"] == charged
    assert status(world)["phase"] == "Restarting"


def test_short_unreachability_is_waited_out(running, lib):
    world = running()
    world.change_pod(world.head().name, unreachable_since=world.now - timedelta(seconds=100))
    look(world, lib)
    assert status(world)["phase"] == "Running"


def test_pods_on_a_dead_node_hold_the_next_attempt_until_the_limit(running, lib):
    world = running(failurePolicy={"backoffSeconds": 1})
    worker = next(p for p in world.pods if p.role == "worker")
    world.change_pod(worker.name, unreachable_since=world.now, node="n7")
    world.exit_driver(world.head(), 1)
    look(world, lib)
    world.clusters.clear()
    world.pods = [p for p in world.pods if p.name == worker.name]
    look(world, lib)
    ready = condition(world, "ClusterReady")
    assert ready["reason"] == "NodeUnreachable" and "n7" in ready["message"]
    world.now += timedelta(seconds=599)
    look(world, lib)
    assert world.created_attempts == [1]
    world.now += timedelta(seconds=2)
    look(world, lib)
    assert world.created_attempts == [1, 2]


def test_stall_by_our_own_clock(running, lib):
    world = running(failurePolicy={"stallSeconds": 300})
    world.now += timedelta(seconds=299)
    look(world, lib)
    assert status(world)["phase"] == "Running"
    world.report(1, 3)
    look(world, lib)
    world.now += timedelta(seconds=299)
    look(world, lib)
    assert status(world)["phase"] == "Running"
    world.now += timedelta(seconds=2)
    look(world, lib)
    assert condition(world, "Progressing")["reason"] in ("Restarting", "BackingOff")
    assert status(world)["failures"][0]["reason"] == "Stalled"


def test_the_drivers_last_words_count_when_its_report_is_late_or_gone(running, lib):
    world = running()
    last = {"attempt": 1, "sequence": 999, "phase": "finished", "step": 40, "steps": 40, "reward": 0.875}
    world.config_maps.pop("toy-a1-progress")
    world.exit_driver(world.head(), 0, json.dumps({"reason": "Succeeded", "message": "finished 40 steps", "progress": last}))
    look(world, lib)
    training = status(world)["training"]
    assert (status(world)["phase"], training["summary"], training["reward"]) == ("Succeeded", "40/40", "0.875")


def test_a_stale_report_takes_nothing_back(running, lib):
    world = running()
    world.report(1, 30)
    look(world, lib)
    late = dict(world.config_maps["toy-a1-progress"])
    world.report(1, 39)
    look(world, lib)
    world.config_maps["toy-a1-progress"] = late
    look(world, lib)
    assert status(world)["training"]["step"] == 39
    world.exit_driver(world.head(), 0)
    look(world, lib)
    assert (status(world)["phase"], status(world)["training"]["step"]) == ("Succeeded", 39)


def test_a_head_that_is_gone_is_judged_by_how_it_was_last_seen(running, lib):
    world = running()
    head, cluster = world.head(), world.clusters["toy-a1"]
    world.departed[cluster.uid] = replace(head, disruption="EvictionByEvictionAPI")
    lost_head(world)
    look(world, lib)
    assert status(world)["phase"] == "Restarting"
    assert (status(world)["restartsUsed"], [f["reason"] for f in status(world)["failures"]]) == (0, ["Evicted"])


def test_progress_of_another_attempt_is_ignored(running, lib):
    world = running()
    before = dict(status(world))
    world.config_maps["toy-a1-progress"]["progress.json"] = json.dumps(
        {"attempt": 9, "sequence": 99, "phase": "training", "step": 39, "steps": 40}
    )
    look(world, lib)
    same = ("training", "progressSequence", "progressTime", "phase", "attempt")
    assert {k: status(world)[k] for k in same} == {k: before[k] for k in same}, "neither numbers nor the stall clock move"
