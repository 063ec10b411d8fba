"""An error that a restart cannot mend is not restarted for ever, and what is told of one fits a line."""

import json

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, look, status

from lprl_api.names import ExitCode
from lprl_operator.decide.failures import MAX_MESSAGE, driver_verdict, job_verdict
from lprl_operator.decide.observed import ContainerState, Exit, JobState, PodState

MISSING = "trainer: loading: rank {} on 10.0.{}.7: AttributeError: 'DeepseekV3Config' object has no attribute 'rope_theta' (rope.py:31)"


def crash(world, lib, message, code=ExitCode.PROGRAM_ERROR, reason="DriverCrashed", owner=None):
    world.exit_driver(world.head(), code, json.dumps({"reason": reason, "message": message, "ownerAttempt": owner}))
    look(world, lib)


@pytest.fixture
def loading(make_world, make_manifest, lib):
    """A world whose first attempt is up and has not made a step."""
    policy = {"maxRestarts": 9, "backoffSeconds": 1}
    world = advance(make_world(make_manifest(failurePolicy=policy)), lib, "Running")
    world.steps[0] = 0
    world.report(1, 0, phase="loading")
    world.document["status"]["training"] |= {"step": 0}
    return world


def second(world, lib, message, **how):
    """The driver of attempt 1 ends; so does that of attempt 2, as soon as it is there, without a step."""
    crash(world, lib, MISSING.format(0, 1))
    for _ in range(60):
        world.tick()
        look(world, lib)
        if 2 in world.created_attempts and world.head() is not None:
            break
    crash(world, lib, message, **how)


def test_the_same_error_at_the_same_step_ends_the_job(loading, lib):
    second(loading, lib, MISSING.format(3, 2))
    assert status(loading)["phase"] == "Failed" and loading.created_attempts == [1, 2]
    assert condition(loading, "Failed")["reason"] == "RepeatedFailure"
    assert status(loading)["message"].startswith("the same error in attempts 1 and 2 at step 0")
    assert status(loading)["message"].endswith("no attribute 'rope_theta' (rope.py:31)")
    assert [f["reason"] for f in status(loading)["failures"]] == ["DriverCrashed", "RepeatedFailure"]


OTHERS = [
    pytest.param("trainer: loading: rank 0 on 10.0.1.7: KeyError: 'router'", {}, id="another-error"),
    pytest.param(MISSING.format(0, 1), {"code": ExitCode.CRASH}, id="by-chance"),
    pytest.param(MISSING.format(0, 1), {"reason": "OutOfMemory"}, id="another-reason"),
]


@pytest.mark.parametrize(("message", "how"), OTHERS)
def test_another_error_is_met_by_another_attempt(loading, lib, message, how):
    second(loading, lib, message, **how)
    assert status(loading)["phase"] == "Restarting"


def test_the_same_error_at_a_later_step_is_met_by_another_attempt(running, lib):
    world = running(failurePolicy={"maxRestarts": 9, "backoffSeconds": 1})
    crash(world, lib, MISSING.format(0, 1))
    advance(world, lib, "Running", 40)
    world.tick()
    look(world, lib)
    crash(world, lib, MISSING.format(0, 1))
    assert status(world)["phase"] == "Restarting"
    assert len({f["step"] for f in status(world)["failures"]}) == 2


def test_a_full_gpu_is_told_as_that_and_ends_the_job_the_second_time(running, lib):
    world = running(failurePolicy={"maxRestarts": 9, "backoffSeconds": 1})
    for gib in (2, 4):
        full = f"OutOfMemoryError: CUDA out of memory. Tried to allocate {gib}.00 GiB; lower topology.trainer.maxTokensPerGpu"
        advance(world, lib, "Running", 60)
        world.report(status(world)["attempt"], 3)
        world.document["status"]["training"] |= {"step": 3}
        crash(world, lib, full, reason="OutOfMemory")
    assert [f["reason"] for f in status(world)["failures"]] == ["OutOfMemory", "RepeatedFailure"]
    assert "maxTokensPerGpu" in status(world)["message"]


@pytest.mark.parametrize("restarts", [0, 2])
@pytest.mark.parametrize("newest", [2, 9])
def test_a_fence_of_an_earlier_job_charges_nothing(make_world, make_manifest, lib, newest, restarts):
    world = make_world(make_manifest(failurePolicy={"maxRestarts": restarts, "backoffSeconds": 1}))
    advance(world, lib, "Running")
    crash(world, lib, "another attempt owns this folder", ExitCode.FENCED, "Fenced", newest)
    advance(world, lib, "Running", 40)
    assert (status(world)["attempt"], status(world)["restartsUsed"]) == (newest + 1, 0)
    assert [f["reason"] for f in status(world)["failures"]] == ["Fenced"]
    crash(world, lib, "another attempt owns this folder", ExitCode.FENCED, "Fenced", newest + 5)
    assert status(world)["restartsUsed"] == (1 if restarts else 0), "two jobs that fence each other out do not do so for ever"
    assert status(world)["phase"] == ("Restarting" if restarts else "Failed")


HEAD = PodState("toy-a1-head", "u", 1, "head")
LOG = "INFO loading\nTraceback (most recent call last):\n  File \"/x.py\", line 3, in f\n    g()\nKeyError: 'lm_head'\n"
SAID = {
    "long": (json.dumps({"reason": "UserError", "message": f"data.prompts row 3: {'x' * 3000}; name data.labelKey"}), "name data.labelKey"),
    "lines": (json.dumps({"reason": "UserError", "message": "a.json: wrong\n  at key b\n; write c"}), "a.json: wrong at key b ; write c"),
    "log": (LOG, "KeyError: 'lm_head'"),
    "log-of-words": ("one\ntwo\n", "one two"),
}


@pytest.mark.parametrize(("said", "words"), SAID.values(), ids=SAID)
def test_what_a_process_said_is_one_line_that_keeps_its_end(said, words):
    driver = driver_verdict(HEAD, ContainerState("terminated", "Error", said, ExitCode.USER_ERROR))
    job = job_verdict(JobState("toy-inspect", "u", "1", frozenset(), 1, exits=(Exit(0, ExitCode.USER_ERROR, "Error", said),)), "X")
    for verdict in (driver, job):
        assert verdict.message.endswith(words) and "\n" not in verdict.message and len(verdict.message) <= MAX_MESSAGE
        assert (verdict.move, verdict.reason) == ("fail", "UserError")
