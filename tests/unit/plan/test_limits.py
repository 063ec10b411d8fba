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
