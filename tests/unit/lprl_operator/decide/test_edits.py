"""Edits of a job that lives: what decides the result is refused by name, the rest says when it takes effect; what waits is corrected."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, edit, look, status

CLAIM = {n: {"persistentVolumeClaim": n} for n in ("models", "data", "checkpoints")}
REFUSED = [
    pytest.param({"optimizer": {"learningRate": 0.5}}, "spec.optimizer", id="learning-rate"),
    pytest.param({"algorithm": {"steps": 40, "rolloutBatchSize": 4, "samplesPerPrompt": 8}}, "spec.algorithm", id="group-size"),
    pytest.param({"algorithm": {"steps": 40, "rolloutBatchSize": 4, "samplesPerPrompt": 4, "seed": 5}}, "spec.algorithm", id="seed"),
    pytest.param({"sampling": {"maxResponseTokens": 5}}, "spec.sampling", id="sampling"),
    pytest.param({"checkpoint": {"volume": "checkpoints", "path": "elsewhere"}}, "spec.checkpoint.path", id="checkpoint-path"),
    pytest.param({"checkpoint": {"volume": "data"}}, "spec.checkpoint.volume", id="checkpoint-volume"),
    pytest.param(
        {"checkpoint": {"volume": "checkpoints", "loadFrom": {"volume": "data", "path": "x"}}}, "spec.checkpoint.loadFrom", id="load-from"
    ),
    pytest.param({"conversion": {"volume": "models", "path": "x"}}, "spec.conversion.path", id="conversion-path"),
    pytest.param({"topology": {"accelerator": "cpu", "nodes": 1}}, "spec.topology", id="topology"),
    pytest.param({"data": {"prompts": {"volume": "data", "path": "b.jsonl"}}}, "spec.data", id="data"),
    pytest.param({"volumes": {**CLAIM, "checkpoints": {"persistentVolumeClaim": "nope"}}}, "spec.volumes", id="claim"),
]


@pytest.mark.parametrize(("change", "field"), REFUSED)
def test_what_decides_the_result_is_refused_while_it_runs_and_named(running, lib, change, field):
    world = running()
    edit(world, **change)
    look(world, lib)
    found = condition(world, "Validated")
    assert (found["status"], found["reason"]) == ("False", "InvalidSpec")
    assert f"{field}: got a change after the start" in found["message"] or found["message"].startswith(field), found["message"]
    assert "spec.model" not in found["message"]


ALLOWED = [
    pytest.param({"stability": {"action": "hold"}}, "stability: now", False, id="guard"),
    pytest.param({"failurePolicy": {"maxRestarts": 9}}, "failurePolicy: now", False, id="budget"),
    pytest.param({"activeDeadlineSeconds": 10**6}, "activeDeadlineSeconds: now", False, id="deadline"),
    pytest.param({"ttlSecondsAfterFinished": 60}, "ttlSecondsAfterFinished: now", False, id="time-to-live"),
    pytest.param({"podTemplate": {"nodeSelector": {"disk": "b"}}}, "podTemplate: with the next attempt", True, id="selector"),
    pytest.param({"checkpoint": {"volume": "checkpoints", "everySteps": 3}}, "checkpoint: with the next attempt", True, id="checkpoints"),
    pytest.param({"tracking": {"tensorboard": False}}, "tracking: with the next attempt", True, id="tracking"),
    pytest.param({"progress": {"intervalSeconds": 60}}, "progress: with the next attempt", True, id="reports"),
    pytest.param(
        {"volumes": {**CLAIM, "data": {"persistentVolumeClaim": "data", "readOnly": True}}},
        "volumes.readOnly: with the next",
        True,
        id="ro",
    ),
]


@pytest.mark.parametrize(("change", "told", "waits"), ALLOWED)
def test_what_may_change_is_told_with_when_it_takes_effect(running, lib, change, told, waits):
    world = running()
    clusters = dict(world.clusters)
    edit(world, **change)
    look(world, lib)
    events = [e for e in world.events if e.reason == "SpecChanged"]
    assert [e.type for e in events] == ["Normal"] and told in events[0].message
    assert status(world)["phase"] == "Running" and set(world.clusters) == set(clusters)
    assert ("takes effect with the next attempt" in condition(world, "Validated")["message"]) == waits
    world.exit_driver(world.head(), 1)
    advance(world, lib, "Running")
    assert "next attempt" not in condition(world, "Validated")["message"], "the next attempt follows it"


def test_suspending_and_resuming_is_no_edit_to_tell_of(running, lib):
    world = running()
    edit(world, suspend=True)
    advance(world, lib, "Suspended")
    edit(world, suspend=False)
    advance(world, lib, "Running")
    assert not [e for e in world.events if e.reason in ("SpecChanged", "Corrected")]


@pytest.fixture
def waiting(make_world, make_manifest, lib):
    """A world whose cluster waits for a worker."""
    world = make_world(make_manifest())
    advance(world, lib, "Provisioning")
    run = world._run_cluster
    world._run_cluster = lambda cluster: run(cluster) if cluster.deleting or cluster.attempt > 1 else None
    world._start_pod(world.clusters["toy-a1"], "head", 0)
    world.change_cluster("toy-a1", head_ready=True)
    return world


CORRECTIONS = [
    pytest.param({"podTemplate": {"workers": {"nodeSelector": {"disk": "b"}}}}, id="selector"),
    pytest.param({"podTemplate": {"tolerations": [{"key": "gpu", "operator": "Exists"}]}}, id="toleration"),
    pytest.param({"podTemplate": {"image": "lprl.test/workload:2"}}, id="image"),
    pytest.param({"podTemplate": {"resources": {"limits": {"memory": "2Gi"}}}}, id="resources"),
    pytest.param({"podTemplate": {"env": [{"name": "A", "value": "b"}]}}, id="environment"),
    pytest.param({"volumes": {**CLAIM, "checkpoints": {"persistentVolumeClaim": "right"}}}, id="claim"),
    pytest.param({"checkpoint": {"volume": "checkpoints", "everySteps": 7}}, id="what-the-driver-is-told"),
]


@pytest.mark.parametrize("driver_waits", [False, True], ids=["no-driver-yet", "driver-waits-for-workers"])
@pytest.mark.parametrize("change", CORRECTIONS)
def test_a_cluster_that_waits_is_made_anew_with_the_correction(waiting, lib, change, driver_waits):
    world = waiting
    if driver_waits:
        world.report(1, 0, phase="starting", message="waits for workers")
        look(world, lib)
    edit(world, **change)
    advance(world, lib, "Running", 80)
    assert world.created_attempts == [1, 2], "old pods gone first: the world checks it at every creation"
    assert (status(world)["restartsUsed"], status(world)["failures"]) == (0, [])
    assert [e.reason for e in world.events].count("SpecChanged") == 1


@pytest.mark.parametrize("change", [{"failurePolicy": {"maxRestarts": 7}}, {"stability": {"action": "hold"}}, {"suspend": False}])
def test_edits_that_make_no_other_pods_make_nothing_anew(waiting, lib, change):
    edit(waiting, **change)
    for _ in range(4):
        look(waiting, lib)
        waiting.tick()
    assert waiting.created_attempts == [1] and not waiting.clusters["toy-a1"].deleting


def test_a_newer_operator_makes_nothing_anew_that_nobody_edited(waiting, lib):
    said = json.loads(waiting.clusters["toy-a1"].made_from)
    waiting.change_cluster("toy-a1", made_from=json.dumps({**said, "pods": "rendered-otherwise"}))
    look(waiting, lib)
    assert not waiting.clusters["toy-a1"].deleting


def job_of(world, lib, what):
    """Bring the world to a waiting Job of a kind."""
    for _ in range(60):
        look(world, lib)
        name = next((n for n in world.jobs if what in n), None)
        if name is not None:
            return name
        world.tick()
    pytest.fail(f"no {what}")


@pytest.mark.parametrize("change", [CORRECTIONS[0].values[0], CORRECTIONS[5].values[0]], ids=["selector", "claim"])
@pytest.mark.parametrize("what", ["-inspect", "lprl-convert", "lprl-finalise"])
def test_a_job_whose_pods_wait_is_made_anew_with_the_correction(make_world, make_manifest, lib, what, change):
    world = make_world(make_manifest())
    name = job_of(world, lib, what)
    before = world.jobs[name].uid
    world.change_job(name, finished="", scheduling="0/1 nodes are available", completed=frozenset())
    edit(world, **change)
    look(world, lib)
    advance(world, lib, "Succeeded", 200)
    assert world.jobs.get(name) is None or world.jobs[name].uid != before
    assert world.created_attempts == [1]


@pytest.mark.parametrize("what", ["-inspect", "lprl-convert"])
def test_a_job_whose_pods_run_is_left_running(make_world, make_manifest, lib, what):
    world = make_world(make_manifest())
    name = job_of(world, lib, what)
    before = world.jobs[name].uid
    world.change_job(name, running=1, active=1)
    edit(world, podTemplate={"nodeSelector": {"disk": "b"}})
    look(world, lib)
    assert world.jobs[name].uid == before


def test_a_conversion_that_others_want_too_is_left_to_them(make_world, make_manifest, lib):
    world = make_world(make_manifest())
    name = job_of(world, lib, "lprl-convert")
    world.change_job(name, owner_uids=frozenset({"uid-1", "uid-2"}))
    before = world.jobs[name].uid
    edit(world, podTemplate={"nodeSelector": {"disk": "b"}})
    look(world, lib)
    assert world.jobs[name].uid == before


def test_another_claim_has_the_source_inspected_and_converted_again(waiting, lib):
    world = waiting
    convert = next(n for n in world.jobs if n.startswith("lprl-convert"))
    inspect = world.jobs["toy-inspect"].uid
    edit(world, volumes={**CLAIM, "models": {"persistentVolumeClaim": "right"}})
    advance(world, lib, "Running", 120)
    assert world.jobs["toy-inspect"].uid != inspect
    assert [n for n in world.jobs if n.startswith("lprl-convert") and n != convert], "on the claim it is to be on"


FORGED = [
    pytest.param(lambda s: s.pop("startTime"), "startTime", id="start-removed"),
    pytest.param(lambda s: s.update(startTime=None), "startTime", id="start-nulled"),
    pytest.param(lambda s: s.update(restartsUsed=2), "restartsUsed", id="budget-used-up"),
    pytest.param(lambda s: s.update(refillStep=30), "refillStep", id="refill-moved"),
    pytest.param(lambda s: s.pop("trainingStartTime"), None, id="training-start-removed"),
    pytest.param(lambda s: s.update(attempt=0), "attempt", id="attempt-zeroed"),
    pytest.param(lambda s: s.clear(), "attempt", id="all-of-it"),
]


@pytest.mark.parametrize(("forge", "field"), FORGED)
def test_what_somebody_took_out_of_status_is_put_back(running, lib, forge, field):
    world = running()
    before = dict(status(world))
    forge(world.document["status"])
    world.document["metadata"]["resourceVersion"] = str(int(world.document["metadata"]["resourceVersion"]) + 1)
    world.now += timedelta(seconds=40)
    look(world, lib)
    assert status(world)["phase"] == "Running" and world.created_attempts == [1]
    assert "trainingStartTime" in status(world) and "startTime" in status(world)
    if field is not None:
        assert status(world)[field] == before[field]


def test_an_edit_made_while_the_start_was_removed_is_refused_all_the_same(running, lib):
    world = running()
    world.document["status"].pop("startTime")
    edit(world, optimizer={"learningRate": 0.5})
    look(world, lib)
    assert condition(world, "Validated")["reason"] == "InvalidSpec"


def test_the_annotations_of_another_jobs_cluster_say_nothing_here(running, lib):
    world = running()
    theirs = replace(world.clusters["toy-a1"], attempt=9, name="theirs", owner_uids=frozenset({"somebody"}))
    world.clusters["theirs"] = theirs
    world._collect_clusters = lambda: None
    look(world, lib)
    assert status(world)["attempt"] == 1
