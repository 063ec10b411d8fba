"""What processes of different versions tell each other: unknown keys, however deep, and unknown words are not said; the rest is read."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError
from tests.toy import SHAPE

from lprl_api.base import Contract
from lprl_api.model.model_shape import Inspection
from lprl_api.wire import lenient
from lprl_api.wire.progress import Control, Progress, Termination
from lprl_api.wire.status import LowPrecisionRLJobStatus
from lprl_operator.decide.decision import _read
from lprl_operator.decide.failures import parse_termination
from lprl_operator.decide.intake import status_of

FREE = {"passAt", "calls", "specParts"}
"""Mappings whose keys are data."""
TIME = "2026-01-01T00:00:00Z"
EVALUATION = {"step": 2, "reward": 0.5, "passAt": {"1": 0.5}}
CHECKPOINT = {"step": 2, "path": "checkpoints:toy/step-000002"}
PROGRESS: dict[str, Any] = {
    "schemaVersion": 1,
    "attempt": 1,
    "sequence": 3,
    "phase": "generating",
    "step": 2,
    "steps": 5,
    "evaluation": EVALUATION,
    "checkpoint": CHECKPOINT,
    "stability": {"state": "stable", "value": 0.1},
    "rewardSignal": {"state": "varied", "samples": [{"prompt": "p", "response": "r", "label": "", "reward": 1.0}]},
    "episodes": {"drawn": 4, "calls": {"ok": 3}},
}
DISTANCE = dict.fromkeys(("positions", "klMean", "klP50", "klP99", "top1Agreement", "nllSource", "nllConverted", "nllChange"), 1)
TERMINATION: dict[str, Any] = {
    "reason": "Crash",
    "message": "m",
    "progress": PROGRESS,
    "answers": {"settings": "s", "distance": DISTANCE, "advice": [{"kind": "serve", "text": "t"}]},
    "largestError": {"tensor": "w", "relativeRmsError": 0.01},
}
STATUS: dict[str, Any] = {
    "phase": "Running",
    "attempt": 3,
    "conditions": [{"type": "Progressing", "status": "True", "reason": "Running", "lastTransitionTime": TIME}],
    "training": {"step": 2, "evaluation": EVALUATION, "checkpoint": CHECKPOINT},
    "failures": [{"attempt": 1, "reason": "HeadLost", "message": "m", "step": 1, "time": TIME}],
    "podTrouble": {"pod": "p", "since": TIME},
    "specParts": {"algorithm": "ab"},
    "inspection": Inspection(shape=SHAPE, fingerprint="ab" * 32, total_bytes=9, tensors=2, shards=1).document(),
    "nodes": {"ready": 1},
    "plan": {"nodes": 2},
    "conversion": {"shards": 1},
}
CONTROL: dict[str, Any] = {"schemaVersion": 1, "suspend": True, "steps": 7, "stability": {"metric": "k3"}}
READ = [(Progress, PROGRESS), (Termination, TERMINATION), (LowPrecisionRLJobStatus, STATUS), (Control, CONTROL)]


def sprinkled(value: Any, key: str = "") -> Any:
    """Every object of a document with a key and a nested one that nobody knows."""
    if isinstance(value, list):
        return [sprinkled(v) for v in value]
    if not isinstance(value, dict) or key in FREE:
        return value
    return {**{k: sprinkled(v, k) for k, v in value.items()}, "ofTomorrow": {"deep": [1]}}


@pytest.mark.parametrize(("model", "document"), READ, ids=lambda v: getattr(v, "__name__", ""))
def test_unknown_keys_are_ignored_however_deep(model: type[Contract], document: dict[str, Any]) -> None:
    assert lenient.read(model, sprinkled(document)) == model.model_validate(document)
    assert lenient.read_json(model, json.dumps(sprinkled(document))) == model.model_validate(document)


@pytest.mark.parametrize(("model", "document"), READ, ids=lambda v: getattr(v, "__name__", ""))
def test_validation_itself_stays_strict(model: type[Contract], document: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(sprinkled(document))


def words(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "phase", {**document, "phase": "dreaming"}
    yield "state", {**document, "stability": {"state": "levitating", "value": 0.1}}
    yield "served", {**document, "effectiveRollout": "fp2"}


@pytest.mark.parametrize(("what", "document"), list(words(PROGRESS)), ids=lambda v: v if isinstance(v, str) else "")
def test_a_word_of_a_newer_driver_hides_nothing_else(what: str, document: dict[str, Any]) -> None:
    found = _read(json.dumps(document))
    assert found is not None and (found.step, found.attempt) == (2, 1)
    if what == "phase":
        assert found.phase == "training", "it runs: it is not taken for one that waits for its workers"
    ended = parse_termination(json.dumps({**TERMINATION, "progress": document}))
    assert ended is not None and ended.progress == found
    with pytest.raises(ValidationError):
        Progress.model_validate(document)


def test_a_phase_of_a_newer_operator_is_computed_anew() -> None:
    found = status_of({"status": {**STATUS, "phase": "Dreaming"}})
    assert (found.phase, found.attempt, len(found.conditions)) == ("Pending", 3, 1)


@pytest.mark.parametrize("change", [{"schemaVersion": 2}, {"step": "two"}, {"attempt": None}], ids=["version", "type", "none"])
def test_what_is_wrong_in_another_way_stays_unread(change: dict[str, Any]) -> None:
    assert _read(json.dumps({**PROGRESS, **change})) is None
    assert _read(json.dumps(sprinkled({**PROGRESS, **change}))) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "null", '{"reason": "X"}', "Traceback"])
def test_texts_that_are_no_report_are_none(text: str) -> None:
    assert parse_termination(text) is None and _read(text) is None
