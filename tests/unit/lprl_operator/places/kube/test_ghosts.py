"""Objects that are gone and that no watch told of, or told of too early: what makes the cache keep one, and what it comes to."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.unit.lprl_operator.kube_memory import Document
from tests.unit.lprl_operator.kube_place import JOBS, MINE, Place, converting

from lprl_api import names
from lprl_operator.decide.actions import Action, AddOwner, Delete, Raise, RemoveOwner
from lprl_operator.decide.observed import Key, ObjectRef
from lprl_operator.kube.api import ApiError
from lprl_operator.places.cluster import Conflict
from lprl_operator.places.kube.cache import Cache
from lprl_operator.places.kube.shelf import Name


@pytest.fixture
def place() -> Place:
    return Place()


def test_an_answer_that_comes_after_the_end_was_told_brings_nothing_back(place: Place) -> None:
    """Workers put their answers into the cache, kopf's loop what watches tell: an answer may come second."""
    path = converting(place, "a")
    answered = place.api.get(path)
    place.cache.remove("Job", place.api.take_away(path))
    place.cache.put("Job", answered)
    assert place.cached(path) is None


@pytest.mark.parametrize("kind", ["Job", "RayCluster", "Pod", "ConfigMap", names.KIND])
def test_that_holds_for_every_kind_also_where_the_end_is_the_first_thing_told(kind: str) -> None:
    cache, labels = Cache(), {names.LABEL_JOB: "toy", names.LABEL_ATTEMPT: "1"}
    meta = {"name": "x", "namespace": "rl", "uid": "u", "resourceVersion": "5", "creationTimestamp": "2026-01-01T00:00:00Z"}
    document: Document = {"metadata": {**meta, "labels": labels}, "spec": {}, "status": {}, "data": {}}
    cache.remove(kind, {**document, "metadata": {**document["metadata"], "resourceVersion": "9"}})
    assert cache.put(kind, document).keys == frozenset()
    assert not cache._shelves[kind].entries


def test_a_pod_of_a_job_that_is_gone_leaves_nothing() -> None:
    cache = Cache()
    owner = {"kind": "Job", "name": "toy-inspect", "uid": "j", "controller": True}
    meta = {"name": "p", "namespace": "rl", "uid": "u", "resourceVersion": "5", "labels": {"batch.kubernetes.io/job-name": "toy-inspect"}}
    pod: Document = {"metadata": {**meta, "ownerReferences": [owner]}, "status": {}}
    cache.remove("Pod", pod)
    cache.put("Pod", pod)
    assert not cache._pods_of_job and not cache._shelves["JobPod"].entries


def test_an_object_that_lost_our_label_and_has_it_again_is_there_again(place: Place) -> None:
    """To a watch with a selector that is an end and a beginning, of one uid; the versions tell them apart."""
    path = converting(place, "a")
    place.cache.remove("Job", place.api.change(path))
    assert place.cached(path) is None
    place.cache.put("Job", place.api.change(path))
    assert place.cached(path) is not None


def test_an_older_object_of_a_name_does_not_take_the_place_of_a_newer_one(place: Place) -> None:
    """Objects of one name are told of by a task each: the old one's last change may come after the new one's first."""
    path = converting(place, "a")
    old = place.api.get(path)
    place.api.take_away(path)
    new = place.api.post(JOBS, {k: v for k, v in old.items() if k != "status"})
    place.cache.put("Job", new)
    place.cache.put("Job", old)
    found = place.cached(path)
    assert found is not None and found.uid == new["metadata"]["uid"]


def test_what_is_gone_is_remembered_for_a_while_only(place: Place) -> None:
    shelf = place.cache._shelves["Job"]
    for number in range(10_000):
        shelf.remove(Name("rl", "x"), f"u{number}", 1)
    assert len(shelf.gone) < 5_000


def test_jobs_in_turn_that_want_a_conversion_whose_job_is_a_ghost_get_it_made_anew(place: Place) -> None:
    """Its end fell into a gap of the watch: kopf lists what is there then, and tells of nothing that went."""
    path = converting(place, "first")
    ghost = place.cached(path)
    assert ghost is not None
    place.api.take_away(f"{MINE}/first")
    place.cache.remove(names.KIND, {"metadata": {"namespace": "rl", "name": "first", "uid": "uid-first"}})
    place.api.take_away(path)  # garbage collection; nobody tells
    for name in ("second", "third", "fourth"):
        place.submit(name)
        for _ in range(2):
            place.look(name)
        there = place.api.objects[path]["metadata"]
        assert f"uid-{name}" in {o["uid"] for o in there["ownerReferences"]}
        found = place.cached(path)
        assert found is not None and found.uid == there["uid"] != ghost.uid
    assert len(place.api.objects[path]["metadata"]["ownerReferences"]) == 3, "the others joined the new one"


def test_a_deletion_refused_because_another_object_has_the_name_shows_that_one(place: Place) -> None:
    path = converting(place, "a")
    old = place.api.take_away(path)
    new = place.api.post(JOBS, old)["metadata"]["uid"]
    ref = ObjectRef("batch/v1", "Job", "rl", path.rpartition("/")[2])
    with pytest.raises(Conflict):
        place.cluster.apply([Delete(ref, old["metadata"]["uid"])])
    found = place.cached(path)
    assert found is not None and found.uid == new


@pytest.mark.parametrize(
    "change", [lambda ref, uid, version: RemoveOwner(ref, uid, version, "uid-a"), lambda *seen: Raise(*seen, "a", "urgent")]
)
def test_leaving_or_raising_a_conversion_that_is_gone_forgets_it(place: Place, change: Callable[..., Action]) -> None:
    path = converting(place, "a", "b")
    old = place.api.get(path)["metadata"]
    place.api.take_away(path)
    ref = ObjectRef("batch/v1", "Job", "rl", path.rpartition("/")[2])
    with pytest.raises(Conflict):
        place.cluster.apply([change(ref, old["uid"], old["resourceVersion"])])
    assert place.cached(path) is None


def test_a_refused_priority_keeps_nothing_waiting_that_comes_behind_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = converting(place, "a", "b")
    old = place.api.get(path)["metadata"]
    ref = ObjectRef("batch/v1", "Job", "rl", path.rpartition("/")[2])

    def refused(*_: Any, **__: Any) -> Any:
        raise ApiError(403, "Forbidden", "a policy forbids it")

    monkeypatch.setattr(place.api, "patch", refused)
    place.cluster.apply([Raise(ref, old["uid"], old["resourceVersion"], "a", "urgent"), Delete(ref, old["uid"])])
    assert path not in place.api.objects and place.cluster.observe(Key("rl", "a")).refusals == ()


def test_who_left_a_conversion_a_moment_after_somebody_else_knows_that_already(place: Place) -> None:
    """The other's answer is in the cache: reading a Job with a thousand owners for each who leaves would cost more than leaving."""
    path = converting(place, "a", "b", "c")
    seen = place.api.get(path)["metadata"]
    ref = ObjectRef("batch/v1", "Job", "rl", path.rpartition("/")[2])
    place.cluster.apply([RemoveOwner(ref, seen["uid"], seen["resourceVersion"], "uid-a")])
    for refused in (RemoveOwner(ref, seen["uid"], seen["resourceVersion"], "uid-b"), Delete(ref, seen["uid"], seen["resourceVersion"])):
        with pytest.raises(Conflict):
            place.cluster.apply([refused])
    assert place.api.asked["GET jobs"] == 0


def test_what_several_jobs_joined_at_once_is_read_once_for_all_of_them(place: Place) -> None:
    path = converting(place, "a")
    uid = place.api.take_away(path)["metadata"]["uid"]
    ref = ObjectRef("batch/v1", "Job", "rl", path.rpartition("/")[2])
    under_way, go, patch = threading.Event(), threading.Event(), place.api.patch

    def held(*asked: Any) -> Document:
        under_way.set()
        assert go.wait(180)
        return patch(*asked)

    place.api.patch = held  # type: ignore[method-assign]
    with ThreadPoolExecutor(8) as pool:
        joins = [pool.submit(place.cluster.apply, [AddOwner(ref, uid, {"uid": f"uid-{n}"})]) for n in range(8)]
        assert under_way.wait(180)
        waiting = place.cluster._joins._next
        while not waiting or len(waiting[ref, uid].owners) < 7:
            pass
        go.set()
        assert all(isinstance(j.exception(180), Conflict) for j in joins)
    assert place.api.asked["GET jobs"] == 1 and place.cached(path) is None
