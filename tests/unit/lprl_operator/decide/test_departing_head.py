"""A head that is on its way out: not ready from that moment on, and judged by why it went, not by what its driver tripped over."""

import json

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, edit, look, status

from lprl_api.names import ANNOTATION_RECORDED_STEP, LABEL_ATTEMPT, ExitCode
from lprl_operator.decide.actions import Begin


def departing(world, **more):
    world.change_pod(world.head().name, deleting=True, **more)
    return next(p for p in world.pods if p.role == "head")


def end(world, code, reason="Error"):
    head = next(p for p in world.pods if p.role == "head")
    world.exit_driver(head, code, json.dumps({"reason": "X", "message": "the cause"}), reason)


def test_a_head_that_is_being_deleted_is_not_ready_and_is_left_its_time(running, lib):
    world = running()
    head = departing(world)
    look(world, lib)
    ready = condition(world, "ClusterReady")
    assert (ready["status"], ready["reason"]) == ("False", "HeadLost")
    assert ready["message"] == f"the head pod {head.name} is being deleted"
    assert not any(c.deleting for c in world.clusters.values()), "its driver may be making a checkpoint"
    world.pods = [p for p in world.pods if p.role != "head"]
    world.change_cluster("toy-a1", head_ready=False)
    look(world, lib)
    assert [f["reason"] for f in status(world)["failures"]] == ["HeadLost"]


ENDS = [
    pytest.param(ExitCode.TERMINATED, "", "HeadLost", 1, id="deleted-no-checkpoint-in-time"),
    pytest.param(ExitCode.TRAINER_LOST, "", "HeadLost", 1, id="deleted-ray-went-first"),
    pytest.param(ExitCode.CRASH, "", "HeadLost", 1, id="deleted-crashed-on-the-way"),
    pytest.param(137, "", "HeadLost", 1, id="deleted-killed-at-the-end-of-its-grace"),
    pytest.param(ExitCode.SUSPENDED, "", "HeadLost", 1, id="deleted-checkpointed-first"),
    pytest.param(ExitCode.TERMINATED, "EvictionByEvictionAPI", "Evicted", 0, id="evicted-no-checkpoint-in-time"),
    pytest.param(ExitCode.TRAINER_LOST, "EvictionByEvictionAPI", "Evicted", 0, id="evicted-ray-went-first"),
    pytest.param(ExitCode.SUSPENDED, "PreemptionByScheduler", "Evicted", 0, id="preempted-checkpointed-first"),
    pytest.param(ExitCode.FENCED, "", "Fenced", 1, id="fenced-is-a-reason-of-its-own"),
]


@pytest.mark.parametrize(("code", "disruption", "reason", "charged"), ENDS)
def test_why_it_went_is_the_reason(running, lib, code, disruption, reason, charged):
    world = running()
    departing(world, disruption=disruption)
    end(world, code)
    look(world, lib)
    assert (status(world)["phase"], status(world)["restartsUsed"]) == ("Restarting", charged)
    assert [f["reason"] for f in status(world)["failures"]] == [reason], "also one that costs nothing is in the history"


@pytest.mark.parametrize(("code", "why"), [(ExitCode.USER_ERROR, "UserError"), (ExitCode.STORAGE_FULL, "StorageFull")])
def test_a_drivers_own_reason_stays(running, lib, code, why):
    world = running()
    departing(world)
    end(world, code)
    look(world, lib)
    assert condition(world, "Failed")["reason"] == why


def test_a_driver_that_is_done_while_its_head_goes_is_done(running, lib):
    world = running()
    departing(world)
    end(world, ExitCode.OK)
    look(world, lib)
    assert status(world)["phase"] == "Succeeded"


def test_a_later_attempt_is_told_the_checkpoint_it_must_find(running, lib):
    world = running(failurePolicy={"backoffSeconds": 0})
    told, apply = [], world.apply

    def note(actions):
        for a in actions:
            if isinstance(a, Begin):
                meta = a.document["spec"]["headGroupSpec"]["template"]["metadata"]
                told.append((meta["labels"][LABEL_ATTEMPT], meta["annotations"][ANNOTATION_RECORDED_STEP]))
        apply(actions)

    world.apply = note
    world.report(1, 12, checkpoint={"step": 10, "path": "checkpoints:checkpoints/toy/step-000010"})
    look(world, lib)
    world.exit_driver(world.head(), 1)
    advance(world, lib, "Running")
    assert told == [("2", "10")]


def test_the_deadline_waits_for_a_last_checkpoint(running, lib):
    world = running(activeDeadlineSeconds=900)
    world.now = lib.START
    world.tick(901)
    world.report(1, 5)
    look(world, lib)
    assert json.loads(world.config_maps["toy-a1-progress"]["control.json"])["suspend"] is True
    assert status(world)["phase"] == "Running" and "last checkpoint" in status(world)["message"]
    world.report(1, 6, phase="stopping", checkpoint={"step": 6, "path": "checkpoints:toy/step-000006"})
    look(world, lib)
    end(world, ExitCode.SUSPENDED)
    look(world, lib)
    failed = condition(world, "Failed")
    assert failed["reason"] == "DeadlineExceeded" and "checkpoint of step 6 is kept" in failed["message"]


def test_the_deadline_does_not_wait_for_ever(running, lib):
    world = running(activeDeadlineSeconds=900)
    world._run_driver = lambda *_: None
    world.now = lib.START
    world.tick(901)
    world.report(1, 5)
    look(world, lib)
    assert status(world)["phase"] == "Running"
    world.tick(300)
    look(world, lib)
    assert condition(world, "Failed")["reason"] == "DeadlineExceeded" and all(c.deleting for c in world.clusters.values())


def test_a_suspended_job_says_where_it_goes_on(running, lib):
    world = running()
    world.report(1, 12, checkpoint={"step": 10, "path": "c:toy/step-000010"})
    look(world, lib)
    edit(world, suspend=True)
    advance(world, lib, "Suspended")
    assert "goes on from the checkpoint of step 10 (c:toy/step-000010)" in status(world)["message"]
