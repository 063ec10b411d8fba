"""Edits, wrong specs, other jobs of the name and shared conversions, each as a scenario on the in-memory world."""

import json
from dataclasses import replace

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, edit, look, status

from lprl_operator.decide.observed import Exit


def test_steps_and_stability_reach_a_running_driver(running, lib):
    world = running()
    edit(world, algorithm={**world.document["spec"]["algorithm"], "steps": 50}, stability={"action": "hold"})
    look(world, lib)
    control = json.loads(world.config_maps["toy-a1-progress"]["control.json"])
    assert control["steps"] == 50 and control["stability"]["action"] == "hold"
    advance(world, lib, "Succeeded")
    assert status(world)["training"]["summary"] == "50/50"


def test_immutable_parts_after_the_start(running, lib):
    world = running()
    edit(world, precision={"training": "bf16", "rollout": "bf16"})
    look(world, lib)
    assert condition(world, "Validated")["reason"] == "InvalidSpec"
    assert status(world)["phase"] == "Failed"


def test_invalid_spec_can_be_corrected_before_the_start(make_world, make_manifest, lib):
    document = make_manifest(topology={"accelerator": "cpu", "nodes": 2, "trainer": {"tensor": 3}})
    world = make_world(document)
    look(world, lib)
    assert status(world)["phase"] == "Failed" and "trainer.tensor" in status(world)["message"]
    assert not world.jobs and "startTime" not in status(world)
    edit(world, topology={"accelerator": "cpu", "nodes": 2})
    advance(world, lib, "Succeeded")


def test_spec_that_does_not_parse(make_world, make_manifest, lib):
    world = make_world(make_manifest(algorithm={"steps": "many"}))
    look(world, lib)
    assert condition(world, "Validated")["reason"] == "InvalidSpec" and "spec.algorithm.steps" in status(world)["message"]


def test_a_running_job_survives_a_spec_that_does_not_parse(running, lib):
    world = running()
    edit(world, algorithm={"steps": "many"})
    look(world, lib)
    assert status(world)["phase"] == "Running" and condition(world, "Validated")["status"] == "False"


def test_children_of_a_deleted_job_of_the_same_name_are_waited_out(running, make_manifest, lib):
    world = running()
    world.document = make_manifest(uid="uid-2")
    for _ in range(3):
        look(world, lib)
        assert status(world)["attempt"] == 0
        world.tick(1)
    for _ in range(60):
        look(world, lib)
        world.tick()
        cluster = world.clusters.get("toy-a1")
        if cluster is not None and cluster.owner_uids == {"uid-2"}:
            break
    else:
        pytest.fail(f"never got its own cluster: {status(world)['phase']}: {status(world)['message']} {world.clusters}")
    assert world.created_attempts == [1, 1]


def test_stability_report_becomes_a_condition(running, lib):
    world = running()
    report = {"state": "drifting", "metric": "k3", "value": 0.02, "baseline": 0.001, "limit": 0.005, "sinceStep": 2}
    world.report(1, 6, stability=report)
    look(world, lib)
    found = condition(world, "TrainingStable")
    assert (found["status"], found["reason"]) == ("False", "MismatchDrift")
    assert found["message"] == "k3=0.02, baseline 0.001, limit 0.005, since step 2"
    assert [e.type for e in world.events if e.reason == "MismatchDrift"] == ["Warning"]


def test_needs_no_conversion(make_world, make_manifest, lib):
    world = make_world(make_manifest(precision={"training": "bf16", "rollout": "bf16"}))
    advance(world, lib, "Succeeded")
    assert condition(world, "Converted")["reason"] == "ConversionNotNeeded"
    assert not [j for j in world.jobs if j.startswith("lprl-convert")]


def _shared(world):
    return [j for n, j in world.jobs.items() if n.startswith("lprl-convert")]


def test_a_conversion_in_progress_is_joined_and_left_to_its_other_owner(make_world, make_manifest, lib):
    world = make_world(make_manifest())
    advance(world, lib, "Converting")
    first = world.document
    world.document = make_manifest(name="twin", uid="uid-2")
    advance(world, lib, "Converting")
    assert [j.owner_uids for j in _shared(world)] == [{"uid-1", "uid-2"}]
    edit(world, suspend=True)
    look(world, lib)
    assert [j.owner_uids for j in _shared(world)] == [{"uid-1"}], "suspended: the other owner still wants it"
    world.document = first
    edit(world, suspend=True)
    look(world, lib)
    assert _shared(world) == [], "nobody wants it"


def test_a_failed_conversion_of_others_is_made_anew(make_world, make_manifest, lib):
    world = make_world(make_manifest())
    advance(world, lib, "Converting")
    old = _shared(world)[0]
    world.change_job(old.name, finished="Failed", exits=(Exit(0, 5),))
    look(world, lib)
    assert status(world)["phase"] == "Failed"
    world.jobs[old.name] = replace(world.jobs.get(old.name, old), finished="Failed")
    world.document = make_manifest(name="next", uid="uid-2")
    advance(world, lib, "Converting")
    for _ in range(3):
        look(world, lib)
    assert _shared(world)[0].uid != old.uid and _shared(world)[0].owner_uids == {"uid-2"}
    advance(world, lib, "Succeeded")
