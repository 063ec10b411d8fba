"""The webhook names the field of an edit that a started job does not take, as the API server's rules name the part."""

from typing import Any

import pytest

from lprl_operator.admission import review

STARTED = {"startTime": "2026-01-01T00:00:00Z"}
TRAINS = STARTED | {"trainingStartTime": "2026-01-01T00:10:00Z"}
EDITS = [
    pytest.param({"optimizer": {"learningRate": 0.5}}, STARTED, "spec.optimizer.learningRate", id="learning-rate"),
    pytest.param({"checkpoint": {"volume": "checkpoints", "path": "x"}}, STARTED, "spec.checkpoint.path", id="checkpoint-place"),
    pytest.param({"sampling": {"maxResponseTokens": 5}}, STARTED, "spec.sampling.maxResponseTokens", id="sampling"),
    pytest.param({"sampling": {"maxResponseTokens": 5}}, {}, None, id="not-started"),
    pytest.param({"checkpoint": {"volume": "checkpoints", "keep": 9}}, TRAINS, None, id="may-change"),
    pytest.param({"volumes": "other"}, STARTED, None, id="claim-before-a-driver-began"),
    pytest.param({"volumes": "other"}, TRAINS, "spec.volumes.checkpoints", id="claim-after"),
]


@pytest.mark.parametrize(("change", "status", "field"), EDITS)
def test_an_edit_is_refused_with_its_field(make_manifest: Any, change: dict[str, Any], status: dict[str, Any], field: str | None) -> None:
    before = make_manifest()
    if change.get("volumes") == "other":
        change = {"volumes": {**before["spec"]["volumes"], "checkpoints": {"persistentVolumeClaim": "other"}}}
    after = {**before, "spec": {**before["spec"], **change}}
    answer = review({"uid": "1", "operation": "UPDATE", "object": after, "oldObject": {**before, "status": status}})
    assert answer["allowed"] == (field is None), answer
    if field is not None:
        assert field in answer["status"]["message"] and "after the start" in answer["status"]["message"]
