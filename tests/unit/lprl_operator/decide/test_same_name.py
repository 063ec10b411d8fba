"""A job made again under its name: what the inspection found of the earlier one is told, and decides the attempts' numbers."""

import json

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, look, status

from lprl_api.checkpoint_ref import CheckpointRef
from lprl_api.model.model_shape import EarlierRun
from lprl_api.names import ExitCode
from lprl_operator.decide.observed import Exit
from lprl_operator.resources.render import MAX_PREFLIGHT_BYTES


def inspected(world, lib, earlier):
    """The inspect Job ends with a report of what lies in the run folder."""
    look(world, lib)
    report = lib.INSPECTION.model_copy(update={"earlier": earlier}).model_dump_json(by_alias=True)
    job = next(j for j in world.jobs.values() if j.name.endswith("-inspect"))
    world.change_job(job.name, finished="Complete", completed=frozenset({0}), exits=(Exit(0, 0, "Completed", report),))
    look(world, lib)


def left(step, attempt=1, uid="uid-0"):
    checkpoint = CheckpointRef(step=step, path=f"checkpoints:checkpoints/toy/step-{step:06d}") if step is not None else None
    return EarlierRun(uid=uid, attempt=attempt, checkpoint=checkpoint)


@pytest.mark.parametrize("restarts", [0, 3])
@pytest.mark.parametrize("attempt", [0, 1, 2, 9])
def test_attempts_begin_above_the_earlier_jobs_and_nothing_is_charged(make_world, make_manifest, lib, attempt, restarts):
    world = make_world(make_manifest(failurePolicy={"maxRestarts": restarts}))
    inspected(world, lib, left(20, attempt))
    advance(world, lib, "Running")
    assert world.created_attempts == [attempt + 1]
    assert (status(world)["attempt"], status(world)["restartsUsed"], status(world).get("failures", [])) == (attempt + 1, 0, [])
    assert f"toy-a{attempt + 1}-progress" in world.config_maps and f"toy-a{attempt}-progress" not in world.config_maps
    world.exit_driver(world.head(), ExitCode.CRASH)
    look(world, lib)
    assert status(world)["phase"] == ("Restarting" if restarts else "Failed")


def test_what_is_resumed_is_an_event_a_condition_and_a_step(make_world, make_manifest, lib):
    world = make_world(make_manifest())
    inspected(world, lib, left(20))
    found = condition(world, "Inspected")
    assert (found["status"], found["reason"]) == ("True", "ResumesEarlierJob")
    assert found["message"].startswith("resumed from step 20 of an earlier job of this name (uid uid-0); ")
    assert status(world)["training"] | {"summary": "20/40"} == status(world)["training"]
    assert status(world)["training"]["checkpoint"]["path"] == "checkpoints:checkpoints/toy/step-000020"
    advance(world, lib, "Running")
    told = [e for e in world.events if e.reason == "ResumesEarlierJob"]
    assert [e.type for e in told] == ["Normal"] and told[0].message == found["message"]


QUIET = [
    pytest.param(None, id="an-empty-folder"),
    pytest.param(left(None, 9), id="a-fence-without-a-checkpoint"),
    pytest.param(left(20, 1, "uid-1"), id="its-own-folder"),
]


@pytest.mark.parametrize("earlier", QUIET)
def test_nothing_is_said_where_nothing_of_another_job_is_resumed(make_world, make_manifest, lib, earlier):
    world = make_world(make_manifest())
    inspected(world, lib, earlier)
    assert condition(world, "Inspected")["reason"] == "Inspected"


def test_a_folder_in_which_all_steps_are_made_says_so(make_world, make_manifest, lib):
    world = make_world(make_manifest())
    inspected(world, lib, left(40, uid=None))
    assert "(its version noted no uid), which made all 40 steps: nothing is left to do" in condition(world, "Inspected")["message"]


def test_what_the_inspection_refuses_ends_the_job_before_any_conversion(make_world, make_manifest, lib):
    world = make_world(make_manifest())
    look(world, lib)
    said = "checkpoint folder c:x/toy holds step 20 of job rl/toy (uid u0), which trained something else: spec.algorithm.seed was 0, is 5"
    said += "; give this job another name, another checkpoint.path, or start from that checkpoint with checkpoint.loadFrom"
    job = next(j for j in world.jobs.values() if j.name.endswith("-inspect"))
    end = Exit(0, ExitCode.USER_ERROR, "Error", json.dumps({"reason": "UserError", "message": said}))
    world.change_job(job.name, finished="Failed", reason="PodFailurePolicy", exits=(end,))
    look(world, lib)
    assert status(world)["phase"] == "Failed" and condition(world, "Failed")["reason"] == "UserError"
    assert status(world)["message"].endswith(said) and "\n" not in status(world)["message"]
    assert [j for j in world.jobs if "convert" in j] == [] and world.created_attempts == []


def carried(job):
    """The inspection's configuration as its pod carries it."""
    return json.loads(job["spec"]["template"]["metadata"]["annotations"]["lprl.dev/inspect.json"])["preflight"]


IMAGES = [
    pytest.param({}, True, True, id="the-operators"),
    pytest.param({"image": "own:1"}, True, True, id="one-of-the-users-for-all"),
    pytest.param({"workers": {"image": "own:1"}}, False, True, id="another-for-workers"),
    pytest.param({"head": {"image": "own:1"}}, True, False, id="another-for-the-head"),
    pytest.param({"head": {"env": [{"name": "PYTHONPATH", "value": "/volumes/code"}]}}, True, False, id="another-path-on-the-head"),
    pytest.param({"env": [{"name": "PYTHONPATH", "value": "/volumes/code"}]}, True, True, id="a-path-for-all"),
    pytest.param({"conversion": {"image": "own:1"}}, False, False, id="another-for-the-inspection"),
]


@pytest.mark.parametrize(("template", "backends", "reward"), IMAGES)
def test_the_inspection_judges_what_its_own_image_holds(make_manifest, lib, template, backends, reward):
    check = carried(lib.wanted(make_manifest(podTemplate=template)).inspect_document())
    assert (check["backends"] is not None, check["importsReward"]) == (backends, reward)
    assert check["trained"]["optimizer"]["learningRate"] > 0 and check["checkpoint"]["directory"]["path"] == "checkpoints/toy"


def test_a_spec_too_large_for_an_annotation_is_checked_by_the_driver_alone(make_manifest, lib):
    manifest = make_manifest()
    manifest["spec"]["data"]["systemPrompt"] = "x" * MAX_PREFLIGHT_BYTES
    assert carried(lib.wanted(manifest).inspect_document()) is None
