"""How long queues held what they let go of, and who evicted."""

from datetime import UTC, datetime, timedelta

import pytest

from lprl_operator.decide.actions import Event
from lprl_operator.decide.observed import Key
from lprl_operator.metrics import OperatorMetrics
from lprl_operator.places.kube.waits import Waits

NOW, TOY, CLUSTER = datetime(2026, 1, 1, tzinfo=UTC), Key("ns", "toy"), ("RayCluster", "uid")


def test_what_is_let_go_was_held_since_it_was_first_seen_held() -> None:
    metrics, waits = OperatorMetrics(), Waits()
    waits.tell = metrics.was_held
    for second, held in ((0, True), (40, True), (90, False), (95, False), (100, True)):
        waits.look(TOY, {CLUSTER: held}, NOW + timedelta(seconds=second))
    waits.look(TOY, {}, NOW + timedelta(seconds=200))
    waits.look(TOY, {CLUSTER: False}, NOW + timedelta(seconds=300))
    found = [metrics.registry.get_sample_value(f"lprl_queued_seconds_{what}", {"kind": "RayCluster"}) for what in ("count", "sum")]
    assert found == [1, 90], "what was deleted while it was held was not let go"


EVICTIONS = [
    ("toy-a1 was suspended by its queue: Preempted: to accommodate a workload", "Preempted"),
    ("toy-a1 was suspended by its queue", "unknown"),
    ("the head pod toy-a1-head was evicted (EvictionByEvictionAPI): its driver made a checkpoint first", "EvictionByEvictionAPI"),
    ("the head pod toy-a1-head ended (Failed) by eviction (TerminationByKubelet)", "TerminationByKubelet"),
]


@pytest.mark.parametrize(("message", "reason"), EVICTIONS)
def test_evictions_are_counted_by_reason(message: str, reason: str) -> None:
    metrics = OperatorMetrics()
    for told in (Event("Normal", "Evicted", message), Event("Warning", "Restarting", f"Evicted: {message}")):
        metrics.told(told)
    assert metrics.registry.get_sample_value("lprl_evictions_total", {"reason": reason}) == 1


def test_a_conversion_that_several_jobs_wait_for_is_let_go_once() -> None:
    waits, told = Waits(), list[tuple[str, float]]()
    waits.tell = lambda kind, seconds: told.append((kind, seconds))
    jobs, shared = [Key("ns", name) for name in "abcde"], ("Job", "uid")
    for second, job in enumerate(jobs):
        waits.look(job, {shared: True}, NOW + timedelta(seconds=second))
    waits.forget(jobs[0])
    for job in jobs[1:]:
        waits.look(job, {shared: False}, NOW + timedelta(seconds=60))
    assert told == [("Job", 60.0)]
    assert not waits._since
