"""An edit that takes effect at once makes no other pods: the next attempt begins with it, in the same RayCluster."""

import json

import pytest
from tests.unit.lprl_operator.decide.steps import advance, edit, look, noted, status

from lprl_api.names import ANNOTATION_LIVE_SETTINGS, ENV_LIVE_SETTINGS, ExitCode
from lprl_operator.decide.actions import Begin
from lprl_operator.decide.intake import intake
from lprl_operator.places import handover


def policy(**more):
    return {"maxRestarts": 2, "backoffSeconds": 0, **more}


def algorithm(**more):
    return {"steps": 40, "rolloutBatchSize": 4, "samplesPerPrompt": 4, **more}


def template(cluster):
    return cluster["spec"]["headGroupSpec"]["template"]


EDITS = {
    "steps": ({"algorithm": algorithm(steps=50)}, ("steps", 50)),
    "stability": ({"stability": {"action": "hold"}}, ("stability", "hold")),
    "stall": ({"failurePolicy": policy(stallSeconds=900)}, ("stallSeconds", 900)),
    "refill": ({"failurePolicy": policy(refillSteps=7)}, ("refillSteps", 7)),
}


@pytest.mark.parametrize("name", EDITS)
def test_the_next_attempt_has_it_in_the_same_cluster(running, lib, name):
    change, (field, value) = EDITS[name]
    world = running(failurePolicy=policy())
    done, uid = noted(world), world.clusters["toy-a1"].uid
    edit(world, **change)
    world.exit_driver(world.head(), ExitCode.CRASH)
    look(world, lib)
    assert not any("needs other pods" in e.message for e in world.events)
    advance(world, lib, "Running")
    assert [type(a).__name__ for a in done] == ["Hold", "Begin"]
    assert (status(world)["attempt"], world.clusters["toy-a1"].uid) == (2, uid)
    told = json.loads(template(done[-1].document)["metadata"]["annotations"][ANNOTATION_LIVE_SETTINGS])[field]
    assert (told["action"] if field == "stability" else told) == value


def test_under_a_queue_the_place_is_kept(queued, lib):
    world = advance(queued(failurePolicy=policy()), lib, "Running")
    done, uid = noted(world), world.clusters["toy-a1"].uid
    edit(world, algorithm=algorithm(steps=50))
    world.exit_driver(world.head(), ExitCode.CRASH)
    advance(world, lib, "Running")
    assert [(type(a).__name__, a.suspend) for a in done] == [("Begin", True)]
    assert world.clusters["toy-a1"].uid == uid
    advance(world, lib, "Succeeded")
    assert status(world)["training"]["summary"] == "50/50"


def test_another_edit_that_reaches_the_driver_still_takes_a_new_cluster(running, lib):
    world = running(failurePolicy=policy())
    edit(world, checkpoint={"volume": "checkpoints", "everySteps": 7})
    world.exit_driver(world.head(), ExitCode.CRASH)
    advance(world, lib, "Running")
    assert status(world)["cluster"] == "toy-a2"


def test_number_and_settings_are_written_together(running, lib):
    """Whoever puts the templates of a cluster back takes both back, so that a number stands for its settings."""
    world = running(failurePolicy=policy())
    done = noted(world)
    edit(world, algorithm=algorithm(steps=50))
    world.exit_driver(world.head(), ExitCode.CRASH)
    advance(world, lib, "Running")
    (begin,) = (a for a in done if isinstance(a, Begin))
    paths = [operation["path"] for operation in handover.patch(begin)]
    head = "/spec/headGroupSpec/template/metadata"
    assert {f"{head}/labels/lprl.dev~1attempt", f"{head}/annotations/lprl.dev~1live-settings"} <= set(paths)


def test_the_driver_reads_it_from_its_pod(running, lib):
    world = running()
    case = intake(world.document, world.snapshot(), world.now, lib.SETTINGS)
    containers = template(case.wanted.attempt_documents(1)[-1])["spec"]["containers"]
    (driver,) = (c for c in containers if c["name"] == "driver")
    (entry,) = (e for e in driver["env"] if e["name"] == ENV_LIVE_SETTINGS)
    assert entry["valueFrom"]["fieldRef"]["fieldPath"] == f"metadata.annotations['{ANNOTATION_LIVE_SETTINGS}']"
