"""What a conversion does to the model's answers: figures reach status, and only the job whose texts or limit it is fails by them."""

import sys
from pathlib import Path
from typing import Any

import pytest

from lprl_api.names import Reason
from lprl_api.spec.operations import ConversionVerify
from lprl_api.wire.answers import Advice, ConversionAnswers, Distance, LargestError, settings_digest
from lprl_api.wire.progress import Termination

sys.path.insert(0, str(Path(__file__).parent))
from steps import advance, condition, look, status

TEXTS = {"prompts": {"volume": "data", "path": "texts.jsonl"}}
FAR = Distance(
    positions=9, kl_mean=0.21234, kl_p50=0.1, kl_p99=1.5, top1_agreement=0.75, nll_source=2.0, nll_converted=2.25, nll_change=0.25
)


SERVE, SMALLER, OUT = (
    Advice(kind="serve", text="nothing to do"),
    Advice(kind="group-size", text="groups of 32", kl_mean=0.205),
    Advice(kind="exclude", text="leave out X", kl_mean=0.1),
)


def wish(**more: Any) -> dict[str, Any]:
    """spec.conversion of a job that wants its answers measured."""
    return {"volume": "models", "parallelism": 2, "verify": TEXTS | more}


def said(verify: dict[str, Any], **answers: Any) -> str:
    """The termination message of a finalise Job that measured what `verify` asks for."""
    found = ConversionAnswers(settings=settings_digest(ConversionVerify.model_validate(verify)), **answers)
    return Termination(reason=Reason.CONVERTED, message="made", answers=found).model_dump_json(by_alias=True)


def test_figures_and_advice_reach_status_and_stay_there(make_world, make_manifest, lib):
    world = make_world(make_manifest(conversion=wish(maxKl=0.3)))
    world.finalised = said(TEXTS, distance=FAR, advice=(OUT,), file="models:converted/f.json")
    advance(world, lib, "Succeeded")
    found = status(world)["conversion"]["answers"]
    figures = {"klMean": "0.212", "klP99": "1.5", "top1Agreement": "0.7500", "nllChange": "0.2500", "positions": 9}
    assert found == found | figures
    assert (found["advice"], found["file"]) == (["leave out X"], "models:converted/f.json")


def test_a_limit_that_is_passed_ends_the_job_with_figures_and_what_to_do(make_world, make_manifest, lib):
    world = make_world(make_manifest(conversion=wish(maxKl=0.2)))
    world.finalised = said(TEXTS, distance=FAR, advice=(SERVE, SMALLER, OUT))
    advance(world, lib, "Failed")
    assert condition(world, "Failed")["reason"] == Reason.USER_ERROR
    told = condition(world, "Failed")["message"]
    assert "conversion.verify.maxKl: mean KL 0.212 nats (p99 1.5, top-1 agreement 75.0%) is above 0.2; leave out X" in told, (
        "the first advice that fits"
    )
    assert world.created_attempts == [] and status(world)["conversion"]["answers"]["klMean"] == "0.212"


def test_texts_that_cannot_be_read_fail_the_job_that_named_them_and_no_other(make_world, make_manifest, lib):
    message = said(TEXTS, problem="texts.jsonl row 0: no key 'prompt'; name one of them")
    world = make_world(make_manifest(conversion=wish()))
    world.finalised = message
    advance(world, lib, "Failed")
    assert "conversion.verify: texts.jsonl row 0: no key 'prompt'" in condition(world, "Failed")["message"]
    other = make_world(make_manifest())
    other.finalised = message
    advance(other, lib, "Succeeded")


def test_what_another_job_had_measured_is_not_taken_for_the_own_wish(make_world, make_manifest, lib):
    """Its finalise Job ended first; one that measures this job's texts follows it."""
    own = TEXTS | {"responseKey": "answer"}
    world = make_world(make_manifest(name="twin", uid="uid-2", conversion=wish()))
    world.finalised = said(TEXTS, distance=FAR)
    while not any(name.startswith("lprl-finalise") for name in world.jobs):
        look(world, lib)
        world.tick()
    final = next(job for name, job in world.jobs.items() if name.startswith("lprl-finalise"))
    while not world.jobs[final.name].finished:
        world.tick()
    convert = next(name for name in world.jobs if name.startswith("lprl-convert"))
    world.change_job(convert, owner_uids=frozenset({"uid-1", "uid-2"}))
    world.document = make_manifest(conversion=wish(responseKey="answer"))
    world.finalised = said(own, distance=FAR)
    advance(world, lib, "Succeeded")
    assert next(job for name, job in world.jobs.items() if name.startswith("lprl-finalise")).uid != final.uid
    assert status(world)["conversion"]["answers"]["settings"] == settings_digest(ConversionVerify.model_validate(own))


def test_a_finalise_job_without_a_word_on_the_answers_is_no_success(make_world, make_manifest, lib):
    world = make_world(make_manifest(conversion=wish()))
    world.finalised = Termination(reason=Reason.CONVERTED, message="made").model_dump_json(by_alias=True)
    advance(world, lib, "Failed")
    assert condition(world, "Failed")["reason"] == Reason.CONVERSION_FAILED
    assert "does its image match the operator's version?" in condition(world, "Failed")["message"]


def far_by(error: float | None) -> str:
    """The termination message of a finalise Job whose worst tensor is so far from the source's."""
    worst = LargestError(tensor="model.layers.0.mlp.up_proj.weight", relative_rms_error=error)
    return Termination(reason=Reason.CONVERTED, message="made", largest_error=worst).model_dump_json(by_alias=True)


@pytest.mark.parametrize(("error", "figure"), [(0.125, "0.125000"), (None, "not finite")])
def test_a_limit_of_weight_errors_fails_the_job_that_has_it_and_no_other_of_the_same_conversion(
    make_world, make_manifest, lib, error, figure
):
    world = make_world(make_manifest(conversion={"volume": "models", "maxRelativeRmsError": 0.12}))
    world.finalised = far_by(error)
    advance(world, lib, "Failed")
    assert condition(world, "Failed")["reason"] == Reason.USER_ERROR and world.created_attempts == []
    told = f"conversion.maxRelativeRmsError: tensor model.layers.0.mlp.up_proj.weight: relative RMS error {figure} is above the limit 0.12"
    assert told in condition(world, "Failed")["message"]
    for limits in ({}, {"maxRelativeRmsError": 0.13}) if error else ({},):
        other = make_world(make_manifest(conversion={"volume": "models"} | limits))
        other.finalised = far_by(error)
        advance(other, lib, "Succeeded")


def test_a_finalise_job_without_a_word_on_weight_errors_is_no_success_where_there_is_a_limit(make_world, make_manifest, lib):
    world = make_world(make_manifest(conversion={"volume": "models", "maxRelativeRmsError": 0.12}))
    world.finalised = Termination(reason=Reason.CONVERTED, message="made").model_dump_json(by_alias=True)
    advance(world, lib, "Failed")
    assert "without a word on the errors of weights; does its image match" in condition(world, "Failed")["message"]


@pytest.mark.parametrize(("verify", "same"), [({"maxKl": 0.5}, True), ({"sensitivityTexts": 4}, False), ({"promptKey": "text"}, False)])
def test_a_limit_is_no_other_measurement(verify: dict[str, Any], same: bool) -> None:
    one, other = (ConversionVerify.model_validate(document) for document in (TEXTS, TEXTS | verify))
    assert (settings_digest(one) == settings_digest(other)) is same
