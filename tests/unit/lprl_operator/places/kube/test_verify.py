"""Jobs that are waited for and say nothing are looked for, each once for all who wait, so that one that is gone is made anew."""

from typing import Any

import pytest
from tests.unit.lprl_operator.kube_memory import Document
from tests.unit.lprl_operator.kube_place import JOBS, MINE, Place, converting
from tests.unit.lprl_operator.world_api import manifest

from lprl_api import names
from lprl_operator.decide.observed import Key
from lprl_operator.places.kube import verify


@pytest.fixture
def place() -> Place:
    return Place()


def test_a_ghost_that_a_job_owns_already_is_found_out_without_a_write_that_fails(place: Place) -> None:
    """Nothing is to be done but to wait, so nothing fails: garbage collection took it as its newest owner's reference was written."""
    path = converting(place, "a", "b")
    before = place.api.take_away(path)["metadata"]["uid"]
    for _ in range(4):
        place.wait(30)
        for name in ("a", "b"):
            place.look(name)
    assert place.api.objects[path]["metadata"]["uid"] != before
    assert len(place.api.objects[path]["metadata"]["ownerReferences"]) == 2


def test_an_inspection_that_is_gone_is_made_anew(place: Place) -> None:
    place.submit("a", inspected=False)
    place.look("a")
    path = place.job()
    place.api.take_away(path)
    for _ in range(3):
        place.wait(30)
        place.look("a")
    assert path in place.api.objects


@pytest.mark.parametrize("status", [{"active": 1}, {"conditions": [{"type": "Complete", "status": "True"}]}])
def test_the_inspection_of_an_earlier_job_of_the_name_is_not_waited_for_once_it_is_gone(place: Place, status: dict[str, Any]) -> None:
    place.submit("a", inspected=False)
    place.look("a")
    path = place.job()
    place.cache.put("Job", place.api.change(path, **status))
    place.api.take_away(path)
    place.api.take_away(f"{MINE}/a")
    again = manifest("a", "uid-again")
    place.cache.put(names.KIND, place.new(again))
    for _ in range(10):
        place.wait(30)
        place.look("a")
    assert place.api.objects[path]["metadata"]["ownerReferences"][0]["uid"] == "uid-again"


@pytest.mark.parametrize("status", [{"active": 1}, {"conditions": [{"type": "Complete", "status": "True"}]}])
def test_a_ghost_that_works_or_whose_shards_are_done_is_found_out_within_minutes(place: Place, status: dict[str, Any]) -> None:
    path = converting(place, "a")
    place.cache.put("Job", place.api.change(path, **status))
    before = place.api.take_away(path)["metadata"]["uid"]
    for _ in range(10):
        place.wait(30)
        place.look("a")
        for finalise in [p for p in place.api.objects if "/lprl-finalise" in p]:  # garbage collection: its owner is none
            place.cache.remove("Job", place.api.take_away(finalise))
    assert place.api.objects[path]["metadata"]["uid"] != before


def test_a_conversion_on_its_way_out_that_is_gone_is_not_waited_for(place: Place) -> None:
    """A job that waits for it does not own it."""
    path = converting(place, "a")
    going = place.api.get(path)
    going["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    place.cache.put("Job", place.api._stored(path, going))
    before = place.api.take_away(path)["metadata"]["uid"]
    place.submit("b")
    for _ in range(3):
        place.wait(30)
        place.look("b")
    assert place.api.objects[path]["metadata"]["uid"] != before


def many(place: Place, path: str, owners: int) -> list[str]:
    """Have as many jobs share a Job as if each had joined it."""
    found, jobs = place.api.get(path), [f"j{i}" for i in range(owners)]
    found["metadata"]["ownerReferences"] = [{"kind": names.KIND, "name": j, "uid": f"uid-{j}"} for j in jobs]
    place.cache.put("Job", place.api._stored(path, found))
    return jobs


def reads(place: Place, jobs: list[str]) -> int:
    """Number of reads of Jobs in ten minutes in which every job is looked at each 30 s."""
    place.api.asked.clear()
    for _ in range(20):
        place.wait(30)
        for name in jobs:
            place.cluster.refresh(Key("rl", name), place.api.now)
    return place.api.asked["GET jobs"]


def test_many_jobs_that_share_a_conversion_have_its_job_read_once_for_all(place: Place) -> None:
    """A Job with pods is read every few minutes, one without (a quota) every 15 s."""
    path = converting(place, "a")
    jobs = many(place, path, 100)
    place.cache.put("Job", place.api.change(path, active=1))
    assert 2 <= reads(place, jobs) <= 600 / verify.WORKING_S
    place.cache.put("Job", place.api.change(path, active=0))
    assert 10 <= reads(place, jobs) <= 600 / verify.QUIET_S


def test_a_job_that_says_something_is_not_read(place: Place) -> None:
    path = converting(place, "a")
    place.api.asked.clear()
    for _ in range(20):
        place.wait(30)
        place.cache.put("Job", place.api.change(path, active=0))
        place.look("a")
    assert place.api.asked["GET jobs"] == 0


def test_many_inspections_that_wait_for_a_pod_are_read_in_turn(place: Place) -> None:
    place.submit("a", inspected=False)
    place.look("a")
    inspect, jobs = place.api.get(place.job()), [f"j{i}" for i in range(100)]
    for name in jobs:
        owner = {"kind": names.KIND, "name": name, "uid": f"uid-{name}", "controller": True}
        meta = {**inspect["metadata"], "name": f"{name}-inspect", "uid": f"uid-inspect-{name}", "ownerReferences": [owner]}
        path = f"{JOBS}/{name}-inspect"
        place.cache.put("Job", place.api._stored(path, {**inspect, "metadata": meta}))
    assert 100 <= reads(place, jobs) <= 600 * verify.READS_PER_S


def test_an_inspection_that_was_reported_is_not_read_again(place: Place) -> None:
    place.submit("a", inspected=False)
    place.look("a")
    path = place.job()
    place.cache.put("Job", place.api.change(path, conditions=[{"type": "Complete", "status": "True"}]))
    place.api.asked.clear()
    for _ in range(20):
        place.wait(30)
        place.cluster.refresh(Key("rl", "a"), place.api.now)
    assert place.api.asked["GET jobs"] == 0


def cluster_of(job: str, kind: str = "RayCluster") -> Document:
    """A RayCluster that waits for its pods, its head, or its progress ConfigMap."""
    labels = {names.LABEL_JOB: job, names.LABEL_ATTEMPT: "1", "ray.io/node-type": "head"}
    owner = {"kind": names.KIND, "name": job, "uid": f"uid-{job}", "controller": True}
    name = f"{job}-a1-progress" if kind == "ConfigMap" else f"{job}-a1"
    meta = {"name": name, "namespace": "rl", "uid": f"{kind}-{job}", "resourceVersion": "7", "labels": labels, "ownerReferences": [owner]}
    spec = {"workerGroupSpecs": [{"replicas": 2}]}
    return {"metadata": {**meta, "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "data": {names.PROGRESS_KEY: "{}"}}


def test_a_live_read_takes_away_clusters_heads_and_progress_that_are_gone(place: Place) -> None:
    """It is made at each resync, and before anything is done: nothing holds a job up for longer."""
    document = manifest("a", "uid-a")
    document["status"] = {"attempt": 1}
    place.cache.put(names.KIND, place.new(document))
    for kind in ("RayCluster", "Pod", "ConfigMap"):
        place.cache.put(kind, cluster_of("a", kind))
    seen = place.cluster.observe(Key("rl", "a"))
    assert seen.clusters and seen.pods and seen.progress
    _, seen = place.cluster.live_read(Key("rl", "a"))
    assert not seen.clusters and not seen.pods and seen.progress is None


def test_a_cluster_whose_job_is_gone_does_not_count_as_one_that_starts(place: Place) -> None:
    """Twenty of them would have every job looked at in turn, as in a crowd, until the operator starts again."""
    place.cache.put("RayCluster", cluster_of("gone"))
    assert place.cache.starting() == 0
    place.submit("a")
    place.cache.put("RayCluster", cluster_of("a"))
    place.cache._counted_at = 0.0
    assert place.cache.starting() == 1
