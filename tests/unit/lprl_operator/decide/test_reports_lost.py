"""Reports: what driver and operator tell each other comes back when somebody deletes or edits it."""

import json
from datetime import timedelta

import pytest
from tests.unit.lprl_operator.decide.steps import advance, edit, look, status

from lprl_operator.controller import reconcile
from lprl_operator.decide.observed import ObjectRef, Refusal

NAME = "toy-a1-progress"


def control(world):
    return json.loads(world.config_maps[NAME]["control.json"])


def delete(world):
    del world.config_maps[NAME], world.controllers[NAME]


def test_a_deleted_progress_config_map_comes_back_while_its_attempt_lives(running, lib):
    world = running()
    delete(world)
    look(world, lib)
    assert world.controllers[NAME] == "uid-1" and control(world)["steps"] == 40
    before = status(world)["training"]["step"]
    world.tick()
    look(world, lib)
    assert status(world)["training"]["step"] > before
    assert advance(world, lib, "Succeeded").created_attempts == [1]


def test_suspension_reaches_a_driver_whose_progress_config_map_was_deleted(running, lib):
    world = running()
    delete(world)
    edit(world, suspend=True)
    look(world, lib)
    assert control(world)["suspend"] is True
    delete(world)
    look(world, lib)
    assert control(world)["suspend"] is True, "also one that was deleted after it was asked"
    advance(world, lib, "Suspended")
    assert (status(world)["restartsUsed"], status(world)["failures"]) == (0, [])


@pytest.mark.parametrize("text", [None, "", '{"suspend": true}'], ids=["removed", "emptied", "forged"])
def test_a_control_that_somebody_edits_is_put_right(running, lib, text):
    world = running()
    want = control(world)
    world.config_maps[NAME].pop("control.json")
    if text is not None:
        world.config_maps[NAME]["control.json"] = text
    look(world, lib)
    assert control(world) == want


def test_it_comes_back_while_the_driver_waits_for_workers(make_world, make_manifest, lib):
    world = make_world(make_manifest())
    advance(world, lib, "Provisioning")
    world._run_cluster = lambda cluster: None
    delete(world)
    look(world, lib)
    assert NAME in world.config_maps


def test_that_of_an_ended_attempt_does_not_come_back(running, lib):
    world = running()
    world.exit_driver(world.head(), 1)
    look(world, lib)
    delete(world)
    for _ in range(3):
        look(world, lib)
        world.tick()
    assert NAME not in world.config_maps


def test_a_foreign_config_map_in_its_place_is_not_asked_for_every_second(running, lib):
    world = running()
    delete(world)
    world.config_maps[NAME], world.controllers[NAME] = {"mine": "1"}, "somebody"
    world._collect_garbage = lambda: None
    world.left_over[NAME] = Refusal(ObjectRef("v1", "ConfigMap", "rl", NAME), "exists already, controlled by somebody", False)
    assert reconcile(world.cached_document(), world, world.now, lib.SETTINGS) >= 30
    assert "controlled by somebody" in status(world)["message"]
    assert world.config_maps[NAME] == {"mine": "1"}
    world.now += timedelta(seconds=1801)
    look(world, lib)
    assert status(world)["failures"][0]["reason"] == "Stalled"
