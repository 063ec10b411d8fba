"""Status words that are true: nothing of what never was, nothing twice, nothing stale."""

import json

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, edit, look, status

from lprl_operator.decide.observed import Exit


def inspection_ends(world, lib, code, message):
    look(world, lib)
    said = json.dumps({"reason": "UserError", "message": message})
    world.change_job("toy-inspect", finished="Failed", reason="PodFailurePolicy", exits=(Exit(0, code, "Error", said),))
    look(world, lib)


@pytest.mark.parametrize(("code", "valid"), [(3, "False"), (1, "Unknown")], ids=["wrong-input", "crash"])
def test_a_job_that_ends_before_its_model_is_known_says_so(make_world, make_manifest, lib, code, valid):
    world = make_world(make_manifest())
    inspection_ends(world, lib, code, "no such folder")
    assert condition(world, "ClusterReady")["reason"] == "NotStarted", "there never was a cluster"
    found = condition(world, "Validated")
    assert (found["status"], found["reason"]) != ("Unknown", "Inspecting") and found["status"] == valid
    assert "no such folder" in found["message"]


def test_a_failure_is_told_once_as_a_warning(make_world, make_manifest, lib):
    world = make_world(make_manifest())
    inspection_ends(world, lib, 3, "no such folder")
    told = [(e.type, e.reason) for e in world.events if "no such folder" in e.message]
    assert told == [("Warning", "UserError")]
    assert not any(e.reason == "ClusterDeleted" for e in world.events)


def test_the_message_of_a_loading_attempt_counts_the_steps_of_earlier_ones(running, lib):
    world = running(failurePolicy={"backoffSeconds": 0})
    world.report(1, 12)
    look(world, lib)
    world.exit_driver(world.head(), 1)
    world._run_driver = lambda cluster, head: world.report(2, 0, phase="loading")
    advance(world, lib, "Running")
    assert status(world)["training"]["summary"] == "12/40"
    assert status(world)["message"] == "loading, step 12/40"


def test_a_job_suspended_before_its_start_says_so(make_world, make_manifest, lib):
    world = make_world(make_manifest(suspend=True))
    look(world, lib)
    assert status(world)["message"] == "nothing was started yet"


def test_a_container_that_cannot_be_made_is_not_called_unscheduled(make_world, make_manifest, lib):
    world = make_world(make_manifest())
    look(world, lib)
    world.change_job("toy-inspect", stuck='CreateContainerConfigError: secret "x" not found')
    look(world, lib)
    assert status(world)["message"] == 'its container cannot start: CreateContainerConfigError: secret "x" not found'


@pytest.mark.parametrize("kind", ["Validated", "Inspected", "Converted", "ClusterReady", "Progressing", "Suspended", "Complete", "Failed"])
@pytest.mark.parametrize("forged", [None, "False", "True"], ids=["removed", "false", "true"])
def test_a_condition_that_somebody_removes_or_forges_comes_back(running, lib, kind, forged):
    world = running()
    before = condition(world, kind)
    conditions = [c for c in status(world)["conditions"] if c["type"] != kind]
    if forged is not None:
        conditions.append({**before, "status": forged, "reason": "Forged", "message": "by hand"})
    world.document["status"] = {**status(world), "conditions": conditions, "phase": "Converting"}
    edit(world)
    look(world, lib)
    assert condition(world, kind)["status"] == before["status"]
    assert status(world)["phase"] == "Running"
