"""A plan says when a worker may have less memory than it is planned to use."""

from typing import Any

import pytest

from lprl_api.catalog.presets import preset_manifest
from lprl_api.rules.parse import parse_job
from lprl_operator.plan.plan import make_plan

LOW, HIGH = {"resources": {"limits": {"memory": "1Gi"}}}, {"resources": {"limits": {"memory": "4Ti"}}}


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ({}, ""),
        (LOW, "podTemplate.resources.limits.memory 1Gi"),
        ({"workers": LOW}, "podTemplate.workers.resources.limits.memory 1Gi"),
        ({**LOW, "workers": HIGH}, ""),
        ({**HIGH, "workers": LOW}, "podTemplate.workers.resources.limits.memory 1Gi"),
        ({"head": LOW, "driver": LOW, "conversion": LOW}, ""),
    ],
)
def test_a_limit_below_what_a_worker_is_planned_to_use_is_noted(template: dict[str, Any], path: str) -> None:
    document = preset_manifest("qwen3-4b-fp8")
    document["spec"]["podTemplate"] = template
    notes = [note for note in make_plan(parse_job(document).spec).notes if "planned for a worker" in note]
    assert len(notes) == bool(path)
    assert not path or notes[0].startswith(path)


def test_what_megatrons_optimizer_takes_more_than_planned_is_noted() -> None:
    document = preset_manifest("qwen3-4b-fp8")
    plan = make_plan(parse_job(document).spec)
    (note,) = [note for note in plan.notes if "masters and moments" in note]
    ranks, parameters = plan.groups.data_parallel, 4.02e9 / plan.groups.tensor
    assert ranks > 1
    found = float(note.split(": ")[1].split(" GB of device memory more on each rank")[0])
    assert found == pytest.approx(12 * parameters * (1 - 1 / ranks) / 1e9, rel=0.02)
    document["spec"]["backends"] = {"trainer": "torch", "rollout": "sglang"}
    document["spec"]["topology"]["trainer"] = {"maxTokensPerGpu": 4096}
    assert not [note for note in make_plan(parse_job(document).spec).notes if "masters and moments" in note]
