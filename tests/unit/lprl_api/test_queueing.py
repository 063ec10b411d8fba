"""What asks a queue for a place and would not be read is refused, with what fits."""

from typing import Any

import pytest

from lprl_api.catalog.presets import preset_manifest
from lprl_api.rules.parse import parse_job
from lprl_api.rules.queueing import check_queueing
from lprl_operator.admission import review

KUEUE, KAI = {"kueue.x-k8s.io/queue-name": "team"}, {"kai.scheduler/queue": "team"}
REQUIRED, PREFERRED = "kueue.x-k8s.io/podset-required-topology", "kueue.x-k8s.io/podset-preferred-topology"
KAI_REQUIRED, KAI_TOPOLOGY = "kai.scheduler/topology-required-placement", "kai.scheduler/topology"
MODE, TIER = "volcano.sh/network-topology-mode", "volcano.sh/network-topology-highest-tier-allowed"


def job(labels: dict[str, str], notes: dict[str, str], template: dict[str, Any] | None = None) -> dict[str, Any]:
    document = preset_manifest("qwen3-30b-a3b-fp8")
    document["metadata"] |= {"labels": labels, "annotations": notes}
    document["spec"]["podTemplate"] |= template or {}
    return document


FIELD = {"topology": {"required": "rack"}}
LEGAL = [
    ({}, {}, None),
    (KUEUE, {REQUIRED: "rack"}, None),
    (KUEUE, {}, {"workers": {"annotations": {REQUIRED: "rack"}}}),
    (KUEUE, {}, FIELD),
    (KAI, {KAI_TOPOLOGY: "network", KAI_REQUIRED: "rack"}, None),
    (KAI, {KAI_TOPOLOGY: "network"}, FIELD),
    ({MODE: "hard", TIER: "2"}, {}, None),
    ({MODE: "soft"}, {}, None),
]
ILLEGAL = [
    ({}, {REQUIRED: "rack"}, None, f"metadata.annotations.{REQUIRED}", "queue-name"),
    ({}, {}, {"workers": {"annotations": {PREFERRED: "rack"}}}, f"spec.podTemplate.workers.annotations.{PREFERRED}", "queue-name"),
    (KUEUE, {REQUIRED: "rack", PREFERRED: "rack"}, None, f"metadata.annotations.{PREFERRED}", f"{REQUIRED} is there"),
    ({**KUEUE, REQUIRED: "rack"}, {}, None, f"metadata.labels.{REQUIRED}", "an annotation of the same name"),
    ({}, {}, FIELD, "spec.podTemplate.topology", "queue-name or kai.scheduler/queue"),
    (KUEUE, {REQUIRED: "rack"}, FIELD, f"metadata.annotations.{REQUIRED}", "nothing beside spec.podTemplate.topology"),
    (KAI, {}, FIELD, f"metadata.annotations.{KAI_TOPOLOGY}", "KAI's Topology"),
    (KAI, {KAI_REQUIRED: "rack"}, None, f"metadata.annotations.{KAI_REQUIRED}", f"the annotation {KAI_TOPOLOGY}"),
    ({}, {KAI_TOPOLOGY: "t", KAI_REQUIRED: "rack"}, None, f"metadata.annotations.{KAI_REQUIRED}", "label kai.scheduler/queue"),
    ({}, {MODE: "hard"}, None, f"metadata.annotations.{MODE}", "a label of the job"),
    ({MODE: "firm"}, {}, None, f"metadata.labels.{MODE}", "hard or soft"),
    ({MODE: "hard", TIER: "rack"}, {}, None, f"metadata.labels.{TIER}", "a whole number"),
    ({TIER: "2"}, {}, None, f"metadata.labels.{TIER}", f"beside the label {MODE}"),
    ({"volcano.sh/queue-name": "team"}, {}, FIELD, "spec.podTemplate.topology", f"labels {MODE} and {TIER}"),
]


@pytest.mark.parametrize(("labels", "notes", "template"), LEGAL)
def test_what_is_read_is_legal(labels: dict[str, str], notes: dict[str, str], template: dict[str, Any] | None) -> None:
    assert check_queueing(parse_job(job(labels, notes, template))) == []


@pytest.mark.parametrize(("labels", "notes", "template", "path", "need"), ILLEGAL, ids=lambda v: v if isinstance(v, str) else "")
def test_what_nobody_reads_is_refused_with_a_remedy(
    labels: dict[str, str], notes: dict[str, str], template: dict[str, Any] | None, path: str, need: str
) -> None:
    document = job(labels, notes, template)
    errors = check_queueing(parse_job(document))
    assert [e.path for e in errors] == [path] and need in errors[0].need, errors
    told = review({"uid": "1", "operation": "CREATE", "object": document})
    assert not told["allowed"] and need in told["status"]["message"]
