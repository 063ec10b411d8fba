"""Requests and limits of every container can be set, by the job and by the operator, and no request is above its limit."""

import itertools
from typing import Any

import pytest
from tests.unit.lprl_operator.resources.test_pod_settings import pod_specs

from lprl_api.errors import UserError
from lprl_api.rules.parse import parse_job
from lprl_api.spec.quantity import amount
from lprl_operator.plan.plan import make_plan
from lprl_operator.resources.render import render_all
from lprl_operator.resources.settings import RenderSettings
from lprl_operator.settings import parse

REMOTE = {"source": {"huggingFace": {"repo": "a/b"}}, "reference": {"s3": {"uri": "s3://b/c"}}}
GPU = {"topology": {"accelerator": "H100-80GB", "nodes": 1}, "precision": {"training": "bf16", "rollout": "bf16"}}
LIMITS = {"cpu": "3", "memory": "6Gi"}
OPERATOR_LIMITS = RenderSettings(head_limits=LIMITS, driver_limits=LIMITS, worker_limits=LIMITS, conversion_limits=LIMITS)
PLAIN = RenderSettings()
Containers = dict[str, dict[str, dict[str, str]]]


def needs(make_manifest: Any, lib: Any, settings: RenderSettings = PLAIN, **spec: Any) -> Containers:
    """Resources by `role/container`, init containers among them."""
    job = parse_job(make_manifest(model=REMOTE, **spec))
    documents = render_all(job, make_plan(job.spec, inspection=lib.INSPECTION), lib.INSPECTION, settings)
    found = {}
    for role, pod in pod_specs(documents).items():
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            found[f"{role}/{container['name']}"] = container["resources"]
    return found


ALL = {
    *("inspect/reference", "inspect/inspect", "convert/convert", "finalise/finalise"),
    *("head/ray-head", "head/driver", "workers/ray-worker"),
}


def test_a_job_limits_every_container_by_one_field(make_manifest: Any, lib: Any) -> None:
    found = needs(make_manifest, lib, podTemplate={"resources": {"limits": LIMITS}})
    assert {name: r["limits"] for name, r in found.items()} == dict.fromkeys(ALL, LIMITS)


def test_the_operator_limits_every_container_where_the_job_says_nothing(make_manifest: Any, lib: Any) -> None:
    found = needs(make_manifest, lib, OPERATOR_LIMITS)
    assert {name: r["limits"] for name, r in found.items()} == dict.fromkeys(ALL, LIMITS)


OWN = [
    pytest.param({"podTemplate": {"head": {"resources": {"limits": {"memory": "5Gi"}}}}}, {"head/ray-head"}, id="ray-head"),
    pytest.param({"podTemplate": {"driver": {"resources": {"limits": {"memory": "5Gi"}}}}}, {"head/driver"}, id="driver"),
    pytest.param({"podTemplate": {"workers": {"resources": {"limits": {"memory": "5Gi"}}}}}, {"workers/ray-worker"}, id="workers"),
    pytest.param(
        {"podTemplate": {"conversion": {"resources": {"limits": {"memory": "5Gi"}}}}},
        {"inspect/reference", "inspect/inspect", "convert/convert", "finalise/finalise"},
        id="podTemplate-conversion",
    ),
    pytest.param(
        {"conversion": {"volume": "models", "resources": {"limits": {"memory": "5Gi"}}}},
        {"inspect/reference", "inspect/inspect", "convert/convert", "finalise/finalise"},
        id="conversion",
    ),
]


@pytest.mark.parametrize(("spec", "whose"), OWN)
def test_its_own_field_is_stronger_than_the_one_for_all_and_reaches_nobody_else(
    make_manifest: Any, lib: Any, spec: dict[str, Any], whose: set[str]
) -> None:
    template = {"resources": {"limits": {"memory": "9Gi"}}, **spec.get("podTemplate", {})}
    found = needs(make_manifest, lib, OPERATOR_LIMITS, **{**spec, "podTemplate": template})
    assert {name for name, r in found.items() if r["limits"]["memory"] == "5Gi"} == whose
    assert {r["limits"]["memory"] for name, r in found.items() if name not in whose} == {"9Gi"}


LAYERS: list[dict[str, Any]] = [
    {},
    {"limits": {"memory": "100Mi"}},
    {"limits": {"cpu": "100m"}, "requests": {"memory": "64Mi"}},
    {"limits": {"memory": "1Gi", "cpu": 2}, "requests": {"memory": "1Gi"}},
]


@pytest.mark.parametrize("hardware", [{}, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize(("everybody", "own"), itertools.product(LAYERS, LAYERS))
def test_no_request_is_above_its_limit(
    make_manifest: Any, lib: Any, everybody: dict[str, Any], own: dict[str, Any], hardware: dict[str, Any]
) -> None:
    template = {"resources": everybody, **{role: {"resources": own} for role in ("head", "driver", "workers", "conversion")}}
    for settings in (PLAIN, RenderSettings(worker_limits={"memory": "200Mi"}, conversion_limits={"memory": "8Gi"})):
        for name, resources in needs(make_manifest, lib, settings, podTemplate=template, **hardware).items():
            limits = resources.get("limits", {})
            for quantity, request in resources.get("requests", {}).items():
                assert quantity not in limits or amount(request) <= amount(limits[quantity]), f"{name}: {resources}"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"headMemory": "4Gi", "headLimits": {"memory": "3Gi"}}, "headMemory 4Gi is above headLimits.memory 3Gi"),
        ({"driverLimits": {"cpu": "500m"}}, "driverCpu 1 is above driverLimits.cpu 500m"),
        ({"conversionLimits": {"memory": "1GB"}}, "resources.conversionLimits.memory"),
        ({"workerLimits": {"a b": 1}}, "resources.workerLimits.a b"),
    ],
)
def test_the_operator_refuses_settings_that_no_pod_could_have(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words.replace(".", r"\.")):
        parse({"resources": values}, "operator.yaml")


def test_the_operator_takes_numbers_for_quantities() -> None:
    found = parse({"resources": {"headCpu": 2, "workerLimits": {"memory": "64Gi", "cpu": 8}}}, "operator.yaml").resources.render()
    assert (found.head_cpu, dict(found.worker_limits)) == ("2", {"memory": "64Gi", "cpu": "8"})
