"""What both adapters do when a RayCluster passes from one attempt to the next: on this machine's folders, and on a real API server."""

import time
from typing import Any

import pytest
from tests.contract.cluster_places import Place
from tests.contract.test_cluster_rules import crd_installed, owner, place

from lprl_api import names
from lprl_operator.decide.actions import Begin, Create, Hold, ref_of
from lprl_operator.decide.observed import ClusterState
from lprl_operator.places.cluster import Conflict

__all__ = ["crd_installed", "place"]


def template(attempt: int, step: int) -> dict[str, Any]:
    labels = {names.LABEL_JOB: "toy", names.LABEL_ATTEMPT: str(attempt)}
    meta = {"labels": labels, "annotations": {names.ANNOTATION_RECORDED_STEP: str(step)}}
    return {"metadata": meta, "spec": {"containers": [{"name": "ray", "image": "none"}], "restartPolicy": "Never"}}


def raycluster(place: Place, attempt: int, step: int = 0) -> dict[str, Any]:
    meta = {
        "name": "toy-a1",
        "namespace": place.key.namespace,
        "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_JOB: "toy", names.LABEL_ATTEMPT: str(attempt)},
        "annotations": {names.ANNOTATION_MADE_FROM: f"of attempt {attempt}", names.ANNOTATION_PODS: "abc"},
        "ownerReferences": [{**owner(place), "controller": True}],
    }
    group = {
        "groupName": "workers",
        "replicas": 1,
        "minReplicas": 1,
        "maxReplicas": 1,
        "rayStartParams": {},
        "template": template(attempt, step),
    }
    spec = {"headGroupSpec": {"rayStartParams": {}, "template": template(attempt, step)}, "workerGroupSpecs": [group]}
    return {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": meta, "spec": spec}


def made(place: Place) -> ClusterState:
    """The RayCluster of attempt 1; its kind may be served a moment after the API server is there."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        place.cluster.apply([Create(raycluster(place, 1))])
        _, seen = place.cluster.live_read(place.key)
        if seen.clusters:
            return seen.clusters[0]
        time.sleep(0.2)
    raise AssertionError("no RayCluster")


def state(place: Place) -> ClusterState:
    (found,) = place.cluster.live_read(place.key)[1].clusters
    return found


def test_a_cluster_is_held_and_the_next_attempt_is_begun_in_it(place: Place) -> None:
    first, ref = made(place), ref_of(raycluster(place, 1))
    assert (first.attempt, first.template_attempt, first.pods, first.held, first.suspended) == (1, 1, "abc", False, False)
    place.cluster.apply([Hold(ref, first.uid, 1, "toy")])
    held = state(place)
    assert (held.uid, held.held, held.suspended, held.told_to_suspend, held.attempt) == (first.uid, True, True, True, 1)
    place.cluster.apply([Begin(raycluster(place, 2, 10), first.uid, 1, False)])
    begun = state(place)
    assert (begun.uid, begun.held, begun.told_to_suspend) == (first.uid, False, False)
    assert (begun.attempt, begun.template_attempt, begun.made_from) == (2, 2, "of attempt 2")


@pytest.mark.parametrize(("suspend", "told"), [(True, True), (None, False)])
def test_under_a_queue_the_number_is_written_with_or_without_a_suspension(place: Place, suspend: bool | None, told: bool) -> None:
    first = made(place)
    place.cluster.apply([Begin(raycluster(place, 2), first.uid, 1, suspend)])
    begun = state(place)
    assert (begun.attempt, begun.template_attempt, begun.told_to_suspend, begun.held) == (2, 2, told, False)


def test_what_is_not_as_it_was_seen_is_left_alone(place: Place) -> None:
    first, ref = made(place), ref_of(raycluster(place, 1))
    for action in (
        Hold(ref, "another-uid", 1, "toy"),
        Hold(ref, first.uid, 2, "toy"),
        Begin(raycluster(place, 3), first.uid, 2, True),
        Begin(raycluster(place, 2), "another-uid", 1, True),
        Begin(raycluster(place, 2), first.uid, 1, False),  # it is not held
    ):
        with pytest.raises(Conflict):
            place.cluster.apply([action])
    after = state(place)
    assert (after.attempt, after.template_attempt, after.told_to_suspend, after.held) == (1, 1, False, False)
