"""When an edit of a spec takes effect: every field has one answer, and its description says it."""

from typing import Any

import pytest

from lprl_api.catalog.presets import preset_manifest
from lprl_api.derived import effects
from lprl_api.rules.parse import parse_job
from lprl_api.spec.job import LowPrecisionRLJobSpec
from lprl_api.spec.operations import Checkpoint, Conversion, Volume

WORDS = ("Immutable after start", "at once", "with the next attempt")


def spec(**changes: Any) -> LowPrecisionRLJobSpec:
    document = preset_manifest("qwen3-4b-fp8")
    document["spec"]["evaluation"] = {"prompts": {"volume": "data", "path": "held.jsonl"}}
    for path, value in changes.items():
        *parents, leaf = path.split("__")
        node = document["spec"]
        for part in parents:
            node = node.setdefault(part, {})
        node[leaf] = value
    return parse_job(document).spec


def test_every_field_of_a_spec_has_an_answer() -> None:
    named = {path.partition(".")[0] for path in (*effects.FIXED, effects.CLAIMS, *effects.NOW, *effects.NEXT)}
    assert named == {field.alias or name for name, field in LowPrecisionRLJobSpec.model_fields.items()}


@pytest.mark.parametrize("name", LowPrecisionRLJobSpec.model_fields)
def test_every_description_says_when_an_edit_takes_effect(name: str) -> None:
    assert any(word in (LowPrecisionRLJobSpec.model_fields[name].description or "") for word in WORDS)


@pytest.mark.parametrize(
    ("model", "name"),
    [(Checkpoint, n) for n in ("volume", "path", "load_from")]
    + [(Conversion, n) for n in ("volume", "path")]
    + [(Volume, "persistent_volume_claim")],
)
def test_descriptions_of_fixed_places_say_so(model: Any, name: str) -> None:
    assert "mmutable" in model.model_fields[name].description


EDITS = [
    pytest.param({"optimizer__learningRate": 0.5}, ("optimizer.learningRate",), id="learning-rate"),
    pytest.param({"algorithm__seed": 7}, ("algorithm.seed",), id="seed"),
    pytest.param({"algorithm__kl": {"coefficient": 0.1}}, ("algorithm.kl",), id="an-optional-part-set"),
    pytest.param({"algorithm__steps": 1}, ("algorithm.steps",), id="steps-lowered"),
    pytest.param({"algorithm__steps": 10**6}, (), id="steps-raised"),
    pytest.param({"sampling__temperature": 0.7}, ("sampling.temperature",), id="temperature"),
    pytest.param({"checkpoint__path": "elsewhere"}, ("checkpoint.path",), id="checkpoint-place"),
    pytest.param({"checkpoint__loadFrom": {"volume": "models", "path": "x"}}, ("checkpoint.loadFrom",), id="load-from"),
    pytest.param({"checkpoint__keep": 9, "checkpoint__everySteps": 3}, (), id="checkpoint-rhythm"),
    pytest.param({"conversion__path": "elsewhere"}, ("conversion.path",), id="conversion-place"),
    pytest.param({"conversion__parallelism": 2}, (), id="conversion-pods"),
    pytest.param({"topology__trainer__tensor": 1, "topology__trainer__sequenceParallel": False}, ("topology.trainer",), id="layout"),
    pytest.param({"backends__rollout": "torch"}, ("backends",), id="backends"),
    pytest.param({"data__shuffle": False}, ("data.shuffle",), id="data"),
    pytest.param({"model__shape": "qwen3-4b"}, (), id="a-shape-is-for-planning"),
    pytest.param({"podTemplate__priorityClassName": "high", "failurePolicy__maxRestarts": 9}, (), id="operations"),
    pytest.param({"tracking__tensorboard": False, "stability__action": "hold", "evaluation__everySteps": 3}, (), id="reports"),
]


@pytest.mark.parametrize(("changes", "fields"), EDITS)
def test_what_decides_the_result_may_not_change(changes: dict[str, Any], fields: tuple[str, ...]) -> None:
    found = effects.refused(spec(), spec(**changes), trains=True)
    assert len(found) >= len(fields) and all(any(f.startswith(want) for f in found) for want in fields), found
    assert bool(found) == bool(fields)
    told = effects.changed(effects.digests(spec()), effects.digests(spec(**changes)))
    without_steps = {f for f in found if f != "algorithm.steps"}
    assert {f for f in told if f in effects.FIXED} == {next(p for p in effects.FIXED if f"{f}.".startswith(f"{p}.")) for f in without_steps}


def test_claims_may_be_corrected_until_a_driver_begins() -> None:
    other = spec()
    volumes = {name: {"persistentVolumeClaim": f"{v.persistent_volume_claim}-2"} for name, v in other.volumes.items()}
    changed = spec(volumes=volumes)
    assert effects.refused(other, changed, trains=False) == ()
    assert all(f.startswith("volumes.") for f in effects.refused(other, changed, trains=True))


def test_an_edit_is_told_with_when_it_takes_effect() -> None:
    told = effects.when(effects.changed(effects.digests(spec()), effects.digests(spec(stability__action="hold", checkpoint__keep=9))))
    assert told == "stability: now; checkpoint: with the next attempt; suspend and resume to apply it now"
