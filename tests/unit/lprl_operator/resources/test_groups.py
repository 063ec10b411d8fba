"""Groups of nodes that a queue keeps together: a worker group each, with what that queue reads."""

import pytest

from lprl_api.catalog.presets import preset_manifest
from lprl_api.model.shapes import SHAPES
from lprl_api.rules.parse import parse_job
from lprl_operator.plan.plan import make_plan
from lprl_operator.resources import groups, metadata

RACK = "example.com/rack"
KUEUE, KAI = {"kueue.x-k8s.io/queue-name": "q"}, {"kai.scheduler/queue": "q"}


def made(near, labels, annotations=None):
    document = preset_manifest("kimi-k2-thinking-int4")
    document["metadata"] |= {"labels": labels, "annotations": annotations or {}}
    document["spec"]["podTemplate"]["topology"] = near
    job = parse_job(document)
    return job, groups.groups(job, make_plan(job.spec, SHAPES["kimi-k2-thinking"]).ranks)


def test_each_group_of_nodes_is_a_worker_group_of_its_own():
    _, found = made({"required": RACK, "groupNodes": 4}, KUEUE)
    assert [(g.name, g.side, g.replicas) for g in found] == [(f"workers-{n}", "workers", 4) for n in range(8)]
    assert [groups.environment(g)[0]["value"] for g in found] == [str(n) for n in range(8)]


@pytest.mark.parametrize("size", [None, 32])
def test_one_group_is_named_as_ever(size):
    near = {"required": RACK} | ({"groupNodes": size} if size else {})
    _, found = made(near, KUEUE)
    assert [(g.name, g.side, g.replicas, groups.environment(g)) for g in found] == [("workers", "workers", 32, ())]


def test_each_queue_gets_its_own_annotations():
    job, _ = made({"required": RACK}, KUEUE)
    assert metadata.worker_annotations(job) == {"kueue.x-k8s.io/podset-required-topology": RACK}
    job, _ = made({"preferred": RACK}, KAI, {"kai.scheduler/topology": "network"})
    assert metadata.worker_annotations(job) == {
        "kai.scheduler/topology": "network",
        "kai.scheduler/topology-preferred-placement": RACK,
    }


def test_workers_of_a_group_carry_its_number_and_the_sides_role(rendered):
    changes = {"topology": {"accelerator": "cpu", "nodes": 4}, "podTemplate": {"topology": {"required": RACK, "groupNodes": 2}}}
    (cluster,) = (d for (k, _), d in rendered(labels=KUEUE, **changes).items() if k == "RayCluster")
    templates = {g["groupName"]: (g["replicas"], g["template"]) for g in cluster["spec"]["workerGroupSpecs"]}
    assert [(name, count) for name, (count, _) in templates.items()] == [("workers-0", 2), ("workers-1", 2)]
    for number, (_, template) in enumerate(templates.values()):
        assert template["metadata"]["labels"]["lprl.dev/role"] == "workers"
        assert template["metadata"]["annotations"]["kueue.x-k8s.io/podset-required-topology"] == RACK
        assert {"name": "LPRL_NODE_GROUP", "value": str(number)} in template["spec"]["containers"][0]["env"]
