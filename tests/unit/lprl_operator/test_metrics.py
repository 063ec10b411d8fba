"""What is exported of jobs: numbers while they live, how they ended after that, and no series that nobody asks for."""

from typing import Any

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from lprl_operator.decide.observed import Key
from lprl_operator.metrics import GAUGES, OperatorMetrics
from lprl_operator.places.kube.summary import summary

TRAINING = {"step": 3, "steps": 9, "reward": "0.5", "mismatch": "0.1", "tokensPerSecond": "5148"}


def status(phase: str, **true: str) -> dict[str, Any]:
    conditions = {"Validated": "True", "ClusterReady": "False", "Complete": "False", "Failed": "False", **true}
    return {
        "phase": phase,
        "attempt": 1,
        "restartsUsed": 0,
        "training": TRAINING,
        "conditions": [{"type": kind, "status": value} for kind, value in conditions.items()],
    }


def exported(per_job: bool = True, **jobs: dict[str, Any]) -> dict[str, list[dict[str, str]]]:
    """Labels of every series, by name."""
    metrics = OperatorMetrics()
    metrics.api_request("get", "jobs", 200, 0.1)
    metrics.reconcile_errors.labels("bug").inc()
    metrics.follow_jobs(lambda: [(Key("ns", name), summary(found)) for name, found in jobs.items()], per_job)
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


@pytest.mark.parametrize(("phase", "ending"), [("Succeeded", "Complete"), ("Failed", "Failed")])
def test_a_job_that_ended_exports_how_and_nothing_else(phase: str, ending: str) -> None:
    found = exported(ended=status(phase, **{ending: "True"}), lives=status("Running"))
    for name, _, _ in GAUGES:
        assert [labels["job"] for labels in found[name]] == ["lives"], name
    of_ended = {labels["type"] for labels in found["lprl_job_condition"] if labels["job"] == "ended"}
    assert of_ended == {"Complete", "Failed"}, "what LprlJobFailed asks for"
    assert len([labels for labels in found["lprl_job_condition"] if labels["job"] == "lives"]) == 4


def test_without_per_job_there_is_no_series_of_a_job() -> None:
    assert not [name for name in exported(per_job=False, lives=status("Running")) if name.startswith("lprl_job_")]


def test_nothing_tells_when_counters_began() -> None:
    found = exported(lives=status("Running"))
    assert "lprl_api_requests_total" in found and "lprl_reconcile_seconds_bucket" in found
    assert not [name for name in found if name.endswith("_created")]
