"""Rewards that are all equal reach whoever looks at the job: condition, event, message; once, whatever restarts."""

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, look, status

SAMPLES = [
    {"prompt": "what is\n1+1?", "response": "it's 2", "label": "2", "reward": 0.0},
    {"prompt": "p", "response": "", "label": "", "reward": 0.0},
]
ZERO = {"state": "all-zero", "value": 0.0, "steps": 3, "responses": 24, "samples": SAMPLES}


def events(world, *reasons):
    return [(e.type, e.reason) for e in world.events if e.reason in reasons]


def test_rewards_that_are_all_zero_are_a_condition_an_event_and_in_the_message(running, lib):
    world = running()
    world.report(1, 6, rewardSignal=ZERO)
    look(world, lib)
    found = condition(world, "RewardSignal")
    assert (found["status"], found["reason"]) == ("False", "AllZero")
    assert found["message"] == (
        "every reward is 0 (24 responses of 3 steps); as the scorer saw them: "
        "prompt ...'what is\\n1+1?', response \"it's 2\", label '2': 0 | prompt ...'p', response '', no label: 0"
    )
    assert status(world)["message"].endswith("; every reward is 0 (24 responses of 3 steps) (condition RewardSignal)")
    world.report(1, 7, rewardSignal=ZERO | {"steps": 4, "responses": 32})
    look(world, lib)
    assert events(world, "AllZero") == [("Warning", "AllZero")], "once"


@pytest.mark.parametrize(
    ("signal", "state", "reason"),
    [
        pytest.param({"state": "measuring"}, "Unknown", "Measuring", id="measuring"),
        pytest.param({"state": "varied", "steps": 1, "responses": 8}, "True", "Varied", id="varied"),
        pytest.param(ZERO | {"state": "all-equal", "value": -1.0}, "False", "AllEqual", id="all-equal"),
    ],
)
def test_every_state_has_its_reason(running, lib, signal, state, reason):
    world = running()
    world.report(1, 6, rewardSignal=signal)
    look(world, lib)
    found = condition(world, "RewardSignal")
    assert (found["status"], found["reason"]) == (state, reason)
    assert bool(events(world, reason)) == (reason == "AllEqual"), "what is as it should be is no event"
    assert ("RewardSignal" in status(world)["message"]) == (reason == "AllEqual")


def test_the_condition_clears_when_rewards_begin_to_differ(running, lib):
    world = running()
    for number, signal in enumerate((ZERO, {"state": "varied", "steps": 4, "responses": 32}), 6):
        world.report(1, number, rewardSignal=signal)
        look(world, lib)
    assert condition(world, "RewardSignal")["status"] == "True" and "RewardSignal" not in status(world)["message"]
    assert events(world, "AllZero", "Varied") == [("Warning", "AllZero"), ("Normal", "Varied")]


@pytest.mark.parametrize("known", [ZERO, {"state": "varied", "steps": 1, "responses": 8}], ids=["all-zero", "varied"])
def test_an_attempt_that_begins_anew_takes_back_nothing(running, lib, known):
    world = running()
    world.report(1, 6, rewardSignal=known)
    look(world, lib)
    before = condition(world, "RewardSignal")
    for number, signal in enumerate((None, {"state": "measuring"}, {"state": "measuring", "value": 0.0, "steps": 1, "responses": 8}), 7):
        world.report(1, number, rewardSignal=signal)
        look(world, lib)
        assert condition(world, "RewardSignal") == before
    world.report(1, 20, rewardSignal=known)
    look(world, lib)
    assert len(events(world, "AllZero")) == (known is ZERO)


def test_a_job_that_ended_still_says_it(running, lib):
    world = running()
    world.report(1, 6, rewardSignal=ZERO)
    look(world, lib)
    advance(world, lib, "Succeeded")
    assert "every reward is 0" in status(world)["message"] and condition(world, "RewardSignal")["reason"] == "AllZero"
