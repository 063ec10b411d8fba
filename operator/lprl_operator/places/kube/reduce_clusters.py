"""PURE: a RayCluster's document -> the few fields decisions read. Unknown or missing parts are never an error."""

from collections.abc import Mapping
from typing import Any

from lprl_api.names import ANNOTATION_HELD, ANNOTATION_NUDGED, ANNOTATION_PODS, LABEL_PRIORITY, LABEL_QUEUE
from lprl_operator.decide.observed import ClusterState
from lprl_operator.places.kube import reduce
from lprl_operator.places.kube.owners import controller_uid
from lprl_operator.resources import refused_pods

Document = Mapping[str, Any]


def cluster_state(document: Document) -> ClusterState | None:
    """A RayCluster; None when it carries no attempt (it is not ours)."""
    attempt, found = reduce.attempt_of(document), reduce.conditions(document)
    spec, status = document.get("spec") or {}, document.get("status") or {}
    if attempt is None:
        return None
    failure, head = found.get("ReplicaFailure", {}), found.get("HeadPodReady", {})
    return ClusterState(
        attempt=attempt,
        name=str(reduce.meta(document).get("name")),
        uid=str(reduce.meta(document).get("uid")),
        resource_version=str(reduce.meta(document).get("resourceVersion")),
        owner_uids=frozenset({controller} if (controller := controller_uid(document)) else ()),
        created_at=reduce.time_of(reduce.meta(document).get("creationTimestamp")),
        deleting="deletionTimestamp" in reduce.meta(document),
        suspended=bool(spec.get("suspend")) or any(reduce.is_true(found, f"RayClusterSuspend{how}") for how in ("ing", "ed")),
        told_to_suspend=bool(spec.get("suspend")),
        emptied=reduce.is_true(found, "RayClusterSuspended"),
        held=bool(reduce.annotation(document, ANNOTATION_HELD)),
        queued=bool(reduce.label(document, LABEL_QUEUE)),
        queue_name=reduce.label(document, LABEL_QUEUE),
        priority_class=reduce.label(document, LABEL_PRIORITY),
        nudged=reduce.annotation(document, ANNOTATION_NUDGED),
        pods=reduce.annotation(document, ANNOTATION_PODS),
        template_attempt=template_attempt(spec),
        head_ready=head.get("status") == "True",
        head_reason=str(head.get("reason", "")),
        provisioned=reduce.is_true(found, "RayClusterProvisioned"),
        made_from=reduce.made_from(document),
        replica_failure=_replica_failure(failure) if failure.get("status") == "True" else "",
        ready_workers=int(status.get("readyWorkerReplicas") or 0),
        wanted_workers=sum(int(g.get("replicas") or 0) * int(g.get("numOfHosts") or 1) for g in spec.get("workerGroupSpecs") or ()),
    )


def template_attempt(spec: Mapping[str, Any]) -> int:
    """The attempt that all pod templates of a RayCluster are labelled with; 0 when they differ."""
    groups = (spec.get("headGroupSpec") or {}, *(spec.get("workerGroupSpecs") or ()))
    found = {reduce.attempt_of(g.get("template") or {}) for g in groups}
    return (found.pop() or 0) if len(found) == 1 else 0


def _replica_failure(condition: Mapping[str, Any]) -> str:
    text = str(condition.get("message") or condition.get("reason", ""))[: reduce.MAX_TEXT]
    return refused_pods.explained(text, refused_pods.pod_of(text))
