"""A message that is longer than the schema lets through is shortened: a status that is refused leaves the job stuck and mute."""

from typing import Any

import pytest
from tests.unit.lprl_operator.status_schema import refused
from tests.unit.lprl_operator.world import SETTINGS, START

from lprl_api.base import MAX_STRING
from lprl_api.names import Condition
from lprl_operator.controller import consider, reconcile
from lprl_operator.decide.observed import ObjectRef, Observed, Refusal

TOLERATIONS = {"tolerations": [{"key": "k", "operator": "Exists", "value": f"v{i}"} for i in range(30)]}
VARIABLES = {"env": [{"name": f"LPRL_VARIABLE_{i}", "value": "x"} for i in range(25)]}


def condition(status: Any, kind: str) -> dict[str, Any]:
    return next(c for c in status["conditions"] if c["type"] == kind)


@pytest.mark.parametrize("template", [TOLERATIONS, VARIABLES], ids=["tolerations", "variables"])
def test_many_mistakes_are_told_within_the_schema(make_manifest: Any, template: dict[str, Any]) -> None:
    status = consider(make_manifest(podTemplate=template), Observed(), START, SETTINGS).status
    assert refused(status) == []
    failed = condition(status, Condition.FAILED)["message"]
    assert failed.startswith("spec.podTemplate") and failed.endswith("change the fields named")
    assert len(failed) == len(status["message"]) == MAX_STRING


def test_a_long_denial_of_an_admission_policy_ends_the_job_with_it(make_world: Any, make_manifest: Any) -> None:
    world = make_world(make_manifest())
    said = "admission webhook denied the request: " + "policy x: rule y failed; " * 160 + "ask the platform team"
    assert len(said) > 4000
    world.refuse = Refusal(ObjectRef("ray.io/v1", "RayCluster", "rl", "toy-a1"), said, True)
    for _ in range(100):
        reconcile(world.cached_document(), world, world.now, SETTINGS)
        world.tick()
        if world.document["status"].get("completionTime"):
            break
    status = world.document["status"]
    assert status["phase"] == "Failed"
    for message in (condition(status, Condition.FAILED)["message"], status["message"], *(f["message"] for f in status["failures"])):
        assert "denied the request" in message and message.endswith("ask the platform team")
