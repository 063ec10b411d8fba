"""Whatever refuses the pods of a Job is in the job's condition at once, and a thousand such Jobs cost a list now and then."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lprl_api import names
from lprl_operator.decide.inspecting import trouble
from lprl_operator.decide.observed import Key
from lprl_operator.places.kube import reduce
from lprl_operator.places.kube.cache import Cache
from lprl_operator.places.kube.podless import EVENTS_A_PERIOD, PERIOD_S, SELECTOR, SOONEST_S, PodlessJobs
from lprl_operator.places.kube.shelf import Name

NOW = datetime(2026, 1, 1, tzinfo=UTC)
QUOTA = 'pods "toy-inspect-x" is forbidden: exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0'
REFUSALS = {
    "quota": QUOTA,
    "quota-on-limits": 'pods "toy-inspect-x" is forbidden: failed quota: q: must specify limits.memory for: inspect',
    "limit-range": 'Pod "toy-inspect-x" is invalid: spec.containers[0].resources.requests: Invalid value: "4Gi": '
    "must be less than or equal to memory limit of 1Gi",
    "pod-security": 'pods "toy-inspect-x" is forbidden: violates PodSecurity "restricted:latest": unrestricted capabilities',
    "webhook": 'admission webhook "policy.example.com" denied the request: images from ghcr.io are not allowed',
    "priority": 'pods "toy-inspect-x" is forbidden: no PriorityClass with name nosuch was found',
}


class Events:
    """An API server with events."""

    def __init__(self, *items: dict[str, Any]) -> None:
        self.items, self.asked = list(items), 0

    def get(self, path: str, **query: str) -> dict[str, Any]:
        assert (path, query) == ("/api/v1/namespaces/ns/events", {"fieldSelector": SELECTOR})
        self.asked += 1
        return {"items": self.items}


def event(job: str, message: str, second: int = 1) -> dict[str, Any]:
    about = {"kind": "Job", "name": job, "uid": f"uid-{job}", "namespace": "ns"}
    return {"involvedObject": about, "lastTimestamp": f"2026-01-01T00:00:{second:02}Z", "message": f"Error creating: {message}"}


def batch_job(owner: str, role: str = "inspect", active: int = 0, version: int = 1, **status: Any) -> dict[str, Any]:
    owners = [{"kind": names.KIND, "name": owner, "uid": f"uid-{owner}", "controller": True}]
    name = f"{owner}-{role}"
    meta = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": str(version), "ownerReferences": owners}
    return {"metadata": meta, "spec": {}, "status": {"active": active, **status}}


def said(cache: Cache, name: str = "toy-inspect") -> str:
    job = cache.conversion(Name("ns", name))
    assert job is not None
    return trouble(job)


def world(*events: dict[str, Any], jobs: tuple[str, ...] = ("toy",)) -> tuple[Events, Cache, PodlessJobs]:
    api, cache = Events(*events), Cache()
    for owner in jobs:
        cache.put("Job", batch_job(owner))
    return api, cache, PodlessJobs(api, cache)  # type: ignore[arg-type]


@pytest.mark.parametrize("why", REFUSALS)
def test_what_refuses_the_pod_is_told_in_its_own_words(why: str) -> None:
    _, cache, podless = world(event("toy-inspect", "something of before", 0), event("toy-inspect", REFUSALS[why]))
    assert said(cache) == ""
    podless.look(Key("ns", "toy"), NOW)
    assert said(cache).startswith(f"pod refused, trying again: {REFUSALS[why]}")
    assert ("conversion.resources.limits.memory" in said(cache)) == (why in ("quota-on-limits", "limit-range"))


@pytest.mark.parametrize("role", ["inspect", "finalise", "lprl-convert-0"])
def test_every_job_of_ours_is_told_of(role: str) -> None:
    api, cache = Events(event(f"toy-{role}", QUOTA)), Cache()
    cache.put("Job", batch_job("toy", role))
    PodlessJobs(api, cache).look(Key("ns", "toy"), NOW)  # type: ignore[arg-type]
    assert QUOTA in said(cache, f"toy-{role}")


def test_it_is_over_when_the_pod_is_made() -> None:
    _, cache, podless = world(event("toy-inspect", QUOTA))
    podless.look(Key("ns", "toy"), NOW)
    assert QUOTA in said(cache)
    cache.put("Job", batch_job("toy", active=1, version=2))
    assert said(cache) == ""


def test_a_refusal_older_than_the_newest_pod_is_over() -> None:
    _, cache, podless = world(event("toy-inspect", QUOTA, second=3))
    pod = {"name": "p", "namespace": "ns", "uid": "p", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:05Z"}
    pod |= {"labels": {reduce.JOB_NAME: "toy-inspect"}, "ownerReferences": [{"kind": "Job", "uid": "uid-toy-inspect", "controller": True}]}
    cache.put("Pod", {"metadata": pod, "status": {"phase": "Failed", "reason": "Evicted"}})
    podless.look(Key("ns", "toy"), NOW)
    assert said(cache) == ""


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({"active": 1}, id="it-has-a-pod"),
        pytest.param({"conditions": [{"type": "Complete", "status": "True"}]}, id="it-is-complete"),
        pytest.param({"conditions": [{"type": "Failed", "status": "True"}]}, id="it-failed"),
    ],
)
def test_nothing_is_asked_while_no_job_waits_for_a_pod(status: dict[str, Any]) -> None:
    api, cache, podless = world(jobs=())
    cache.put("Job", batch_job("toy", **status))
    podless.look(Key("ns", "toy"), NOW)
    assert api.asked == 0


def test_a_namespace_is_listed_once_for_all_its_jobs() -> None:
    owners = tuple(f"j{i}" for i in range(1000))
    api, cache, podless = world(*(event(f"{o}-inspect", QUOTA) for o in owners), jobs=owners)
    for number, owner in enumerate(owners):  # all are looked at within 10 s, and again every 30 s for five minutes
        podless.look(Key("ns", owner), NOW + timedelta(seconds=number / 100))
    first = api.asked
    assert first <= 10 / SOONEST_S + 2
    for turn in range(1, 11):
        for number, owner in enumerate(owners):
            podless.look(Key("ns", owner), NOW + timedelta(seconds=30 * turn + number / 100))
    period_s = PERIOD_S * len(api.items) / EVENTS_A_PERIOD
    assert api.asked - first <= 310 / period_s + 10 / SOONEST_S
    assert all(QUOTA in said(cache, f"{o}-inspect") for o in owners)


def test_one_more_job_that_waits_is_told_soon() -> None:
    api, cache, podless = world(event("toy-inspect", QUOTA))
    podless.look(Key("ns", "toy"), NOW)
    cache.put("Job", batch_job("more"))
    api.items.append(event("more-inspect", QUOTA))
    podless.look(Key("ns", "more"), NOW + timedelta(seconds=SOONEST_S))
    assert QUOTA in said(cache, "more-inspect")


def test_what_was_refused_in_another_namespace_stays() -> None:
    _, cache, podless = world(event("toy-inspect", QUOTA))
    podless.look(Key("ns", "toy"), NOW)
    cache.refused_pods.replace("other", {})
    assert QUOTA in said(cache)
    cache.refused_pods.replace("ns", {})
    assert said(cache) == ""
