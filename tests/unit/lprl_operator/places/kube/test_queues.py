"""What a queue says of what it holds is what is told of the job, and a namespace full of waiting jobs costs a list now and then."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lprl_api import names
from lprl_operator.decide.inspecting import trouble
from lprl_operator.decide.observed import Key
from lprl_operator.kube.api import ApiError
from lprl_operator.places.kube.cache import Cache
from lprl_operator.places.kube.queues import ABSENT_S, PERIOD_S, SOONEST_S, WORKLOADS_A_PERIOD, Queues, said

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = Key("ns", "toy")
QUOTA = "couldn't assign flavors to pod set main: insufficient quota for cpu in flavor any, request > maximum capacity (4 > 3)"
PREEMPTED = "Preempted to accommodate a workload (UID: 1, JobUID: 2) due to prioritization in the ClusterQueue"


class Kueue:
    """An API server with Workloads, or without."""

    def __init__(self, *items: dict[str, Any], refuses: int = 0) -> None:
        self.items, self.refuses, self.asked, self.discovered = list(items), refuses, 0, 0

    def get(self, path: str, **query: str) -> dict[str, Any]:
        if path == "/apis/kueue.x-k8s.io":
            self.discovered += 1
            if self.refuses == 404:
                raise ApiError(404, "NotFound", "no such group")
            return {}
        assert (path, query) == ("/apis/kueue.x-k8s.io/v1beta2/namespaces/ns/workloads", {})
        self.asked += 1
        if self.refuses:
            raise ApiError(self.refuses, "NotFound", "no")
        return {"items": self.items}


def condition(kind: str, value: str, reason: str, message: str) -> dict[str, str]:
    return {"type": kind, "status": value, "reason": reason, "message": message}


PENDING = condition("QuotaReserved", "False", "Pending", QUOTA)
RESERVED = condition("QuotaReserved", "True", "QuotaReserved", "Quota reserved in ClusterQueue training")
EVICTED = condition("Evicted", "True", "Preempted", PREEMPTED)


def workload(uid: str, *conditions: dict[str, str], active: bool = True) -> dict[str, Any]:
    meta = {"name": f"w-{uid}", "ownerReferences": [{"uid": uid, "controller": True}]}
    return {"metadata": meta, "spec": {"active": active}, "status": {"conditions": list(conditions)}}


SAID = [
    pytest.param((PENDING,), True, f"Pending: {QUOTA}", id="pending"),
    pytest.param((condition("QuotaReserved", "False", "Inadmissible", "ClusterQueue training is inactive"),), True,
                 "Inadmissible: ClusterQueue training is inactive", id="inactive-queue"),
    pytest.param((EVICTED, PENDING), True, f"Preempted: {PREEMPTED}; Pending: {QUOTA}", id="preempted-and-waits"),
    pytest.param((EVICTED, condition("QuotaReserved", "False", "Pending", PREEMPTED)), True, f"Preempted: {PREEMPTED}", id="preempted"),
    pytest.param((condition("Evicted", "True", "Deactivated", "The workload is deactivated"),), False,
                 "Deactivated: The workload is deactivated", id="deactivated"),
    pytest.param((), False, "Deactivated: spec.active of its Workload is false", id="deactivated-before-it-was-admitted"),
    pytest.param((RESERVED, condition("Evicted", "False", "QuotaReserved", "Previously: Preempted")), True, "", id="admitted-again"),
    pytest.param((), True, "", id="new"),
]  # fmt: skip


@pytest.mark.parametrize(("conditions", "active", "text"), SAID)
def test_the_words_are_kueues(conditions: tuple[dict[str, str], ...], active: bool, text: str) -> None:
    assert said(workload("u", *conditions, active=active)) == text


def held(name: str = "toy", suspend: bool = True) -> dict[str, Any]:
    owners = [{"kind": names.KIND, "name": name, "uid": "uid-job", "controller": True}]
    meta = {"name": f"{name}-inspect", "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": "1", "ownerReferences": owners}
    return {"metadata": meta, "spec": {"suspend": suspend}, "status": {}}


def cluster(suspend: bool = True, version: str = "1") -> dict[str, Any]:
    meta = {**held()["metadata"], "name": "toy-a1", "uid": "uid-rc", "resourceVersion": version}
    return {"metadata": {**meta, "labels": {names.LABEL_JOB: "toy", names.LABEL_ATTEMPT: "1"}}, "spec": {"suspend": suspend}}


def world(kueue: Kueue, *jobs: dict[str, Any]) -> tuple[Cache, Queues]:
    cache = Cache()
    for job in jobs:
        cache.put("Job", job)
    return cache, Queues(kueue, cache)  # type: ignore[arg-type]


def test_a_held_job_says_why() -> None:
    cache, queues = world(Kueue(workload("uid-toy", PENDING)), held())
    found = cache.observed(KEY, "uid-job", NOW).inspect
    assert found is not None and trouble(found) == "queued: waiting for admission"
    queues.look(KEY, NOW)
    found = cache.observed(KEY, "uid-job", NOW).inspect
    assert found is not None and trouble(found) == f"queued: Pending: {QUOTA}"


def test_a_held_cluster_says_why_and_one_that_is_let_go_does_not() -> None:
    cache, queues = world(Kueue(workload("uid-rc", EVICTED, PENDING)))
    cache.put("RayCluster", cluster())
    queues.look(KEY, NOW)
    assert [c.queue for c in cache.observed(KEY, "uid-job", NOW).clusters] == [f"Preempted: {PREEMPTED}; Pending: {QUOTA}"]
    cache.put("RayCluster", cluster(suspend=False, version="2"))
    assert [c.queue for c in cache.observed(KEY, "uid-job", NOW).clusters] == [""]


def test_one_that_is_evicted_a_moment_after_it_was_let_go_says_why() -> None:
    kueue = Kueue(workload("uid-rc", RESERVED))
    cache, queues = world(kueue)
    for second, suspended in ((0, True), (5, False), (8, True)):
        cache.put("RayCluster", cluster(suspended, str(second + 1)))
        queues.look(KEY, NOW + timedelta(seconds=second))
        kueue.items = [workload("uid-rc", EVICTED)]
    assert [c.queue for c in cache.observed(KEY, "uid-job", NOW).clusters] == [f"Preempted: {PREEMPTED}"]


def test_nothing_is_asked_while_nothing_is_held() -> None:
    kueue = Kueue()
    _, queues = world(kueue, held(suspend=False))
    queues.look(KEY, NOW)
    assert kueue.asked == 0


def test_a_thousand_looks_at_waiting_jobs_are_one_list_a_period() -> None:
    kueue = Kueue(*(workload(f"uid-j{n}", PENDING) for n in range(WORKLOADS_A_PERIOD * 2)))
    cache, queues = world(kueue, *(held(f"j{n}") for n in range(100)))
    for second in range(int(PERIOD_S)):
        for n in range(100):
            queues.look(Key("ns", f"j{n}"), NOW + timedelta(seconds=second))
    assert kueue.asked == 1, "a list tells of all of them"
    cache.put("Job", held("late"))
    for second in range(int(PERIOD_S), int(PERIOD_S) * 2):
        queues.look(Key("ns", "late"), NOW + timedelta(seconds=second))
        queues.look(Key("ns", "j1"), NOW + timedelta(seconds=second))
    assert kueue.asked == 2, "one that is held since is worth another list; a long list is had seldomer"


def test_another_one_that_is_held_is_worth_a_list_only_after_some_seconds() -> None:
    kueue = Kueue(workload("uid-j1", PENDING))
    cache, queues = world(kueue, held("j1"))
    queues.look(Key("ns", "j1"), NOW)
    cache.put("Job", held("j2"))
    kueue.items = [*kueue.items, workload("uid-j2", PENDING)]
    queues.look(Key("ns", "j2"), NOW + timedelta(seconds=SOONEST_S - 1))
    assert kueue.asked == 1
    queues.look(Key("ns", "j2"), NOW + timedelta(seconds=SOONEST_S))
    assert kueue.asked == 2


@pytest.mark.parametrize("refuses", [404, 403], ids=["no-kueue", "no-right"])
def test_without_kueue_or_the_right_to_read_it_nothing_is_said_and_seldom_asked(refuses: int) -> None:
    kueue = Kueue(refuses=refuses)
    cache, queues = world(kueue, held())
    for second in range(0, int(ABSENT_S), 10):
        queues.look(KEY, NOW + timedelta(seconds=second))
    assert (kueue.discovered, kueue.asked) == (1, 0 if refuses == 404 else 1), "what there is not is not asked for, nor refused"
    found = cache.observed(KEY, "uid-job", NOW).inspect
    assert found is not None and trouble(found) == "queued: waiting for admission"
    queues.look(KEY, NOW + timedelta(seconds=ABSENT_S + 1))
    assert (kueue.discovered, kueue.asked) == (2, 0 if refuses == 404 else 2)


@pytest.mark.parametrize(("refuses", "queued"), [(0, True), (403, True), (404, False)], ids=["kueue", "no-right", "no-kueue"])
def test_a_label_holds_nothing_where_there_is_no_kueue(refuses: int, queued: bool) -> None:
    """Else a restart would suspend the RayCluster and wait for ever for a queue to let go of it."""
    kueue = Kueue(refuses=refuses)
    cache, queues = world(kueue)
    labelled = cluster(suspend=False)
    labelled["metadata"]["labels"][names.LABEL_QUEUE] = "team"
    cache.put("RayCluster", labelled)
    for second in range(0, int(ABSENT_S), 10):
        queues.look(KEY, NOW + timedelta(seconds=second))
    assert [c.queued for c in cache.observed(KEY, "uid-job", NOW).clusters] == [queued]
    assert (kueue.discovered, kueue.asked) == (1, 0)


def test_what_the_operator_holds_between_attempts_is_no_queues() -> None:
    kueue = Kueue()
    cache, queues = world(kueue)
    held_by_us = cluster()
    held_by_us["metadata"]["annotations"] = {names.ANNOTATION_HELD: "true"}
    cache.put("RayCluster", held_by_us)
    queues.look(KEY, NOW)
    assert (kueue.discovered, kueue.asked) == (0, 0)


def ranked(uid: str, value: int, name: str | None, *conditions: dict[str, str]) -> dict[str, Any]:
    found = workload(uid, *conditions)
    found["spec"] |= {"priority": value}
    if name is not None:
        found["spec"] |= {"priorityClassRef": {"group": "kueue.x-k8s.io", "kind": "WorkloadPriorityClass", "name": name}}
    return found


def test_a_held_job_has_its_workloads_rank_and_those_of_the_classes_in_use() -> None:
    """Also of a class that only a Workload of something that ended has."""
    done = ranked("uid-done", 1000, "high", condition("Finished", "True", "Succeeded", ""), RESERVED)
    pod_class = ranked("uid-pods", 7, None, RESERVED)
    mine = held()
    mine["metadata"]["labels"] = {names.LABEL_PRIORITY: "low"}
    cache, queues = world(Kueue(done, ranked("uid-toy", 10, "low", PENDING), pod_class), mine)
    queues.look(KEY, NOW)
    found = cache.observed(KEY, "uid-job", NOW).inspect
    assert found is not None
    assert (found.priority_class, found.priority, dict(found.ranks)) == ("low", 10, {"high": 1000, "low": 10})
