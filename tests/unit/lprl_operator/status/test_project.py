"""Conditions, phase and events as pure functions."""

import pytest

from lprl_api.names import Condition
from lprl_api.wire.progress import EpisodeReport, Progress
from lprl_api.wire.status import LowPrecisionRLJobStatus, Phase
from lprl_operator.decide.decision import Finding
from lprl_operator.status.conditions import set_conditions
from lprl_operator.status.events import events
from lprl_operator.status.project import lost, message, phase, staleness


def conditions(*findings, old=(), now="t1", generation=1):
    return set_conditions(old, [Finding(*f) for f in findings], now, generation)


def test_transition_time_moves_only_when_the_status_flips():
    first = conditions(("Validated", "True", "Valid", "a"), now="t1")
    same = conditions(("Validated", "True", "Valid", "b"), old=first, now="t2", generation=2)
    assert (same[0].last_transition_time, same[0].message, same[0].observed_generation) == ("t1", "b", 2)
    flipped = conditions(("Validated", "False", "InvalidSpec", "b"), old=same, now="t3")
    assert flipped[0].last_transition_time == "t3"


def test_conditions_without_a_finding_stay_and_the_order_is_fixed():
    old = conditions(("Failed", "False", "NotFinished"), ("Validated", "True", "Valid"))
    new = conditions(("Inspected", "True", "Inspected"), old=old, now="t2")
    assert [c.type for c in new] == ["Validated", "Inspected", "Failed"]
    assert new[0] == old[0]


INSPECTED, CONVERTED = ("Inspected", "True", "Inspected"), ("Converted", "True", "Converted")
PHASES = [
    pytest.param([], Phase.PENDING, id="nothing-yet"),
    pytest.param([("Inspected", "False", "Inspecting")], Phase.INSPECTING, id="inspecting"),
    pytest.param([INSPECTED, ("Converted", "False", "Converting")], Phase.CONVERTING, id="converting"),
    pytest.param([INSPECTED, CONVERTED, ("Progressing", "False", "Starting")], Phase.PROVISIONING, id="provisioning"),
    pytest.param([INSPECTED, CONVERTED, ("Progressing", "True", "Running")], Phase.RUNNING, id="running"),
    pytest.param([INSPECTED, CONVERTED, ("Progressing", "False", "Restarting")], Phase.RESTARTING, id="restarting"),
    pytest.param([INSPECTED, CONVERTED, ("Progressing", "False", "BackingOff")], Phase.RESTARTING, id="backing-off"),
    pytest.param([("Suspended", "True", "Suspended")], Phase.SUSPENDED, id="suspended"),
    pytest.param([("Suspended", "False", "Suspending"), ("Progressing", "True", "Running")], Phase.RUNNING, id="suspending"),
    pytest.param(
        [INSPECTED, CONVERTED, ("Suspended", "False", "Suspending"), ("Progressing", "False", "Suspended")], Phase.RUNNING, id="pods-go"
    ),
    pytest.param([("Complete", "True", "Succeeded"), ("Progressing", "False", "Finished")], Phase.SUCCEEDED, id="succeeded"),
    pytest.param([("Failed", "True", "UserError"), ("Suspended", "True", "Suspended")], Phase.FAILED, id="failed-beats-all"),
]


@pytest.mark.parametrize(("findings", "want"), PHASES)
def test_phase_is_read_off_the_conditions(findings, want):
    found = conditions(*findings)
    assert phase(found) == want
    assert message(found) == ""


def test_message_is_that_of_the_condition_which_decides():
    found = conditions(("Failed", "True", "UserError", "no such file"), ("Progressing", "False", "UserError", "other"))
    assert message(found) == "no such file"


def test_message_of_a_job_that_waits_for_its_pods_to_go():
    found = conditions(("Suspended", "False", "Suspending", "waits until toy-a1 is gone"), ("ClusterReady", "False", "ClusterDeleted", ""))
    assert message(found) == "waits until toy-a1 is gone"


def status(*findings, old=(), **more):
    return LowPrecisionRLJobStatus(conditions=conditions(*findings, old=old), **more)


def test_events_tell_changes_of_reason_once_and_not_of_message():
    empty = status()
    first = status(("ClusterReady", "False", "KubeRayMissing", "install it"))
    assert [(e.type, e.reason, e.message) for e in events(empty, first)] == [("Warning", "KubeRayMissing", "install it")]
    assert events(first, status(("ClusterReady", "False", "KubeRayMissing", "please"))) == ()


def test_events_leave_out_what_says_nothing():
    assert events(status(), status((Condition.FAILED, "False", "NotFinished"), (Condition.COMPLETE, "False", "Succeeded"))) == ()


def test_a_new_attempt_is_told():
    assert [e.message for e in events(status(), status(attempt=2))] == ["attempt 2"]
    assert events(status(attempt=2), status(attempt=8, restart_not_before="t")) == (), "a fence raised the number; nothing started"


def progress(**fields):
    return Progress(attempt=1, sequence=1, phase="training", step=3, steps=9, **fields)


def test_staleness_is_told_of_runs_that_generate_ahead_only():
    assert staleness(progress(staleness=0.9712, staleness_max=1)) == "0.97, at most 1"
    assert staleness(progress(staleness=0.0, staleness_max=0)) is None and staleness(progress()) is None


def test_episodes_that_came_to_nothing_are_told_by_what_became_of_them():
    report = EpisodeReport(drawn=8, failed=2, aborted=1)
    assert lost(progress(episodes=report, dropped_episodes=6)) == "2 failed, 1 aborted, 6 given up"
    assert lost(progress(dropped_episodes=6)) == "6 given up" and lost(progress()) is None
