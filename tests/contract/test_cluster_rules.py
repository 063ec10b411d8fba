"""One suite for the Cluster Protocol, run on both adapters: on this machine's folders, and on a real API server."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.cluster_places import Kube, Local, Place

from lprl_api import names
from lprl_api.crd.generate import crd
from lprl_operator.decide.actions import AddOwner, Apply, Create, Delete, DeleteOwned, Event, RemoveOwner, ref_of
from lprl_operator.kube.api import ApiError, KubeApi
from lprl_operator.places.cluster import Conflict
from lprl_operator.places.local.cluster import LocalCluster
from lprl_operator.places.local.folders import Folders


@pytest.fixture(scope="module")
def crd_installed(api_server: None) -> None:
    api, path = KubeApi.connect(), "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    try:
        api.post(path, crd())
    except ApiError as error:
        assert error.reason == "AlreadyExists", error


@pytest.fixture(params=["local", pytest.param("kube", marks=pytest.mark.cluster)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "local":
        with LocalCluster(Folders.of(tmp_path / "state", tmp_path / "volumes")) as cluster:
            yield Local(tmp_path, cluster)
        return
    request.getfixturevalue("crd_installed")
    found = _connected()
    yield found
    found.close()


def _connected() -> Kube:
    """A new CRD is served a moment after it was created."""
    for _ in range(100):
        try:
            return Kube(f"rules-{uuid.uuid4().hex[:8]}")
        except ApiError as error:
            if error.status != 404:
                raise
    raise AssertionError("the CRD is not served")


def owner(place: Place) -> dict[str, Any]:
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": "toy", "uid": place.uid}


def job(place: Place, name: str, command: str = "sleep 60") -> dict[str, Any]:
    container = {"name": "work", "image": "none", "command": ["sh", "-c", command]}
    template = {"metadata": {"labels": {}}, "spec": {"containers": [container], "volumes": [], "restartPolicy": "Never"}}
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_CONTENT_KEY: "abc"}
    meta = {"name": name, "namespace": place.key.namespace, "labels": labels, "ownerReferences": [owner(place)]}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": template}}


def progress(place: Place, attempt: int = 1, **data: str) -> dict[str, Any]:
    labels = {names.LABEL_JOB: "toy", names.LABEL_ATTEMPT: str(attempt), names.LABEL_ROLE: "progress"}
    owners = [{**owner(place), "controller": True}]
    meta = {"name": f"toy-a{attempt}-progress", "namespace": place.key.namespace, "labels": labels, "ownerReferences": owners}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": dict(data)}


def test_create_is_once(place: Place) -> None:
    place.cluster.apply([Create(job(place, "one"))])
    before = place.seen().jobs["one"]
    place.cluster.apply([Create(job(place, "one", "sleep 1")), Create(job(place, "two"))])
    assert place.seen().jobs["one"].uid == before.uid
    assert set(place.seen().jobs) == {"one", "two"}
    assert place.seen().refusals == ()


def test_an_object_somebody_else_controls_is_refused_for_now(place: Place) -> None:
    place.cluster.apply([Create(progress(place))])
    theirs = progress(place)
    theirs["metadata"]["ownerReferences"][0]["uid"] = "another-job-of-this-name"
    place.cluster.apply([Create(theirs), Create(job(place, "later"))])
    refusals = place.seen().refusals
    assert [(r.ref.name, r.permanent) for r in refusals] == [("toy-a1-progress", False)]
    assert "later" not in place.seen().jobs


def test_delete_of_another_object_conflicts(place: Place) -> None:
    place.cluster.apply([Create(job(place, "one"))])
    with pytest.raises(Conflict):
        place.cluster.apply([Delete(ref_of(job(place, "one")), uid="someone-else")])
    place.cluster.apply([Delete(ref_of(job(place, "never")), uid="x")])


KINDS_OF_AN_ATTEMPT = {
    "ServiceAccount": {"apiVersion": "v1"},
    "ConfigMap": {"apiVersion": "v1", "data": {"mine": "1"}},
    "Role": {"apiVersion": "rbac.authorization.k8s.io/v1", "rules": []},
    "RoleBinding": {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "toy"},
    },
    "PodDisruptionBudget": {"apiVersion": "policy/v1", "spec": {"minAvailable": 1}},
}


@pytest.mark.parametrize("kind", KINDS_OF_AN_ATTEMPT)
def test_what_is_deleted_by_owner_is_that_owners_alone(place: Place, kind: str) -> None:
    """Of one name: nobody's object, somebody's, one that the job owns but does not control, and its own."""
    controls = {**owner(place), "controller": True}
    for owners, stays in (([], True), ([{**place.another(), "controller": True}], True), ([owner(place)], True), ([controls], False)):
        meta = {"name": "toy-a1", "namespace": place.key.namespace, "ownerReferences": owners}
        document = {**KINDS_OF_AN_ATTEMPT[kind], "kind": kind, "metadata": meta}
        ref = ref_of(document)
        place.put(document)
        place.cluster.apply([DeleteOwned(ref, place.uid)])
        assert place.has(ref) is stays, owners
        place.take_away(ref)
    place.cluster.apply([DeleteOwned(ref, place.uid)])


def test_owners_join_and_leave(place: Place) -> None:
    place.cluster.apply([Create(job(place, "shared"))])
    state = place.seen().jobs["shared"]
    ref, other = ref_of(job(place, "shared")), place.another()
    place.cluster.apply([AddOwner(ref, state.uid, other)])
    joined = place.seen().jobs["shared"]
    assert joined.owner_uids == {place.uid, other["uid"]}
    with pytest.raises(Conflict):
        place.cluster.apply([Delete(ref, state.uid, state.resource_version)])
    with pytest.raises(Conflict):
        place.cluster.apply([RemoveOwner(ref, state.uid, state.resource_version, other["uid"])])
    joined = place.seen().jobs["shared"]
    place.cluster.apply([RemoveOwner(ref, state.uid, joined.resource_version, other["uid"])])
    assert place.seen().jobs["shared"].owner_uids == {place.uid}
    with pytest.raises(Conflict):
        place.cluster.apply([AddOwner(ref, "another-uid", other)])


def test_a_job_of_a_job_is_seen_as_such_and_goes_with_it(place: Place) -> None:
    place.cluster.apply([Create(job(place, "first"))])
    first = place.seen().jobs["first"]
    second = job(place, "second")
    second["metadata"]["ownerReferences"] = [{"apiVersion": "batch/v1", "kind": "Job", "name": "first", "uid": first.uid}]
    place.cluster.apply([Create(second)])
    seen = place.seen().jobs["second"]
    assert (seen.owner_job, seen.owner_uids) == ("first", {first.uid})
    place.cluster.apply([Delete(ref_of(job(place, "first")), first.uid)])
    deadline = time.monotonic() + 180
    while (left := place.seen().jobs) and time.monotonic() < deadline:
        place.passes()
    assert not left


def test_apply_sets_control_beside_progress_and_creates_nothing(place: Place) -> None:
    control = progress(place, **{names.CONTROL_KEY: '{"a":1}'})
    patch = {**control, "metadata": {k: control["metadata"][k] for k in ("name", "namespace")}}
    place.cluster.apply([Apply(patch)])
    assert place.seen().control is None
    place.cluster.apply([Create(progress(place, **{names.CONTROL_KEY: "{}"}))])
    assert place.seen().control == "{}"
    place.report("toy-a1-progress", '{"step": 1}')
    place.cluster.apply([Apply(patch)])
    seen = place.seen()
    assert (seen.progress, seen.control) == ('{"step": 1}', '{"a":1}')


def test_progress_of_the_newest_attempt_counts(place: Place) -> None:
    place.cluster.apply([Create(progress(place, 2)), Create(progress(place, 10)), Create(progress(place, 9))])
    for attempt in (2, 9, 10):
        place.report(f"toy-a{attempt}-progress", str(attempt))
    assert place.seen().progress == "10"


def test_a_progress_config_map_that_somebody_deleted_is_missed_and_made_anew(place: Place) -> None:
    place.cluster.publish(place.key, {"phase": "Running", "attempt": 1}, place.document()["metadata"]["resourceVersion"], [])
    document = progress(place, 1, **{names.CONTROL_KEY: "{}"})
    document["metadata"]["labels"][names.LABEL_MANAGED_BY] = names.MANAGED_BY
    place.cluster.apply([Create(document)])
    assert place.seen().progress_attempt == 1
    place.take_away(ref_of(document))
    assert place.cluster.live_read(place.key)[1].progress_attempt is None
    place.cluster.apply([Create(document)])
    assert place.has(ref_of(document)) and place.seen().progress_attempt == 1


def test_publish_is_guarded_and_events_follow_the_write(place: Place) -> None:
    version = place.document()["metadata"]["resourceVersion"]
    place.cluster.publish(place.key, {"phase": "Pending"}, version, [Event("Normal", "Valid", "ok")])
    document, _ = place.cluster.live_read(place.key)
    assert document is not None and document["status"]["phase"] == "Pending"
    with pytest.raises(Conflict):
        place.cluster.publish(place.key, {"phase": "Running"}, version, [Event("Normal", "Running", "no")])
    assert place.document()["status"]["phase"] == "Pending"
    assert place.events() == ["Valid"]


def test_a_job_that_is_gone_is_none(place: Place) -> None:
    myself = place.document()["metadata"]
    ref = ref_of({"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"namespace": place.key.namespace, **myself}})
    place.cluster.apply([Delete(ref, place.uid)])
    assert place.cluster.live_read(place.key)[0] is None
