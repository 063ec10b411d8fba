"""Events: in order while there are few; in a crowd the newest of each job is told, and warnings always."""

from typing import Any

import pytest

from lprl_operator.decide.actions import Event
from lprl_operator.places.kube import eventlog
from lprl_operator.places.kube.eventlog import EventLog


def job(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "ns", "uid": f"uid-{name}"}}


def normal(reason: str) -> Event:
    return Event("Normal", reason, "words")


def waiting(log: EventLog) -> list[tuple[str, str]]:
    found = []
    while (event := log._take(0.0)) is not None:
        found.append((event["involvedObject"]["name"], event["reason"]))
    return found


@pytest.fixture
def log() -> EventLog:
    return EventLog(None, "test", start=False)  # type: ignore[arg-type]


def test_few_events_are_all_told_in_order(log: EventLog) -> None:
    log.send(job("a"), [normal("Starting"), normal("Running")])
    log.send(job("b"), [Event("Warning", "HeadLost", "words")])
    log.send(job("a"), [normal("Stable")])
    assert waiting(log) == [("a", "Starting"), ("a", "Running"), ("b", "HeadLost"), ("a", "Stable")]


def test_in_a_crowd_only_the_newest_normal_event_of_a_job_waits(log: EventLog) -> None:
    jobs = [job(f"j{i}") for i in range(eventlog.CROWD + 1)]
    for document in jobs:
        log.send(document, [normal("Starting")])
    for document in jobs:
        log.send(document, [normal("WaitingForWorkers"), normal("Running")])
    log.send(jobs[0], [Event("Warning", "HeadLost", "words"), Event("Warning", "Failed", "words")])
    found = waiting(log)
    assert found[:-2] == [(d["metadata"]["name"], "Running") for d in jobs]
    assert found[-2:] == [("j0", "HeadLost"), ("j0", "Failed")]


def test_what_was_taken_is_not_replaced_any_more(log: EventLog) -> None:
    for i in range(eventlog.CROWD + 2):
        log.send(job(f"j{i}"), [normal("Starting")])
    assert log._take(0.0)["reason"] == "Starting"  # type: ignore[index]
    log.send(job("j0"), [normal("Running")])
    assert waiting(log)[-1] == ("j0", "Running")


def test_more_than_the_capacity_is_dropped(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "CAPACITY", 3)
    log.send(job("a"), [normal(f"r{i}") for i in range(5)])
    assert [reason for _, reason in waiting(log)] == ["r0", "r1", "r2"]
