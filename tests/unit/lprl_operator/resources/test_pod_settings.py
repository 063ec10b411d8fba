"""Settings of pods are taken as Kubernetes takes them, and reach every pod as they were written."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.lprl_api.illegal.test_illegal import patched, refusals

from lprl_api.rules.parse import parse_job
from lprl_api.spec.quantity import amount
from lprl_operator.plan.plan import make_plan
from lprl_operator.resources.render import render_all
from lprl_operator.resources.settings import RenderSettings

LEGAL: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parents[2] / "lprl_api" / "legal_pods.yaml").read_text())


def is_within(part: Any, whole: Any) -> bool:
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and is_within(value, whole[key]) for key, value in part.items())
    return bool(part == whole)


def pod_specs(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {}
    for document in documents:
        if document["kind"] == "Job":
            found[document["metadata"]["labels"]["lprl.dev/role"]] = document["spec"]["template"]["spec"]
        if document["kind"] == "RayCluster":
            spec = document["spec"]
            found["head"] = spec["headGroupSpec"]["template"]["spec"]
            found |= {group["groupName"]: group["template"]["spec"] for group in spec["workerGroupSpecs"]}
    return found


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in LEGAL])
def test_what_kubernetes_takes_is_taken_and_reaches_every_pod(case: dict[str, Any], lib: Any) -> None:
    document = patched("laptop", {"podTemplate": case["set"]})
    assert refusals(document) == []
    job = parse_job(patched("laptop", {"podTemplate": case["set"], "model.shape": "~~"}))
    specs = pod_specs(render_all(job, make_plan(job.spec, inspection=lib.INSPECTION), lib.INSPECTION, RenderSettings()))
    assert set(specs) == {"inspect", "convert", "finalise", "head", "workers"}
    for role, spec in specs.items():
        for key, wanted in case.get("pod", {}).items():
            assert is_within(wanted, spec[key]), f"{role}: {spec[key]}"
        for name, wanted in case.get("env", {}).items():
            for container in [*spec["containers"], *spec.get("initContainers", ())]:
                entry = next(e for e in container["env"] if e["name"] == name)
                assert entry == {"name": name, **wanted}, role


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2", 2),
        ("500m", Decimal("0.5")),
        (".5", Decimal("0.5")),
        ("1.", 1),
        ("1e9", 10**9),
        ("12E+8", 12 * 10**8),
        ("1E", 10**18),
        ("1Ei", 2**60),
        ("1.5Gi", 3 * 2**29),
        ("100n", Decimal("1e-7")),
        ("3k", 3000),
        ("+1", 1),
        ("1e-3", Decimal("0.001")),
    ],
)
def test_a_quantity_is_the_number_kubernetes_reads(text: str, number: Any) -> None:
    assert amount(text) == number
