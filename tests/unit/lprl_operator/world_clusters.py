"""RayClusters of the in-memory API server: made, held and passed from attempt to attempt, with what must hold when that happens."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from lprl_api.names import ANNOTATION_PODS, LABEL_ATTEMPT, LABEL_PRIORITY, LABEL_QUEUE
from lprl_operator.decide.actions import HandOver, Hold, Nudge
from lprl_operator.decide.observed import ClusterState, PodState
from lprl_operator.places.cluster import Conflict


def made_from(document: dict[str, Any]) -> str:
    return str(document["metadata"].get("annotations", {}).get("lprl.dev/made-from", ""))


def queue(meta: Mapping[str, Any]) -> dict[str, Any]:
    labels = meta.get("labels", {})
    return {"queue_name": labels.get(LABEL_QUEUE, ""), "priority_class": labels.get(LABEL_PRIORITY, "")}


class RayClusters:
    """One part of the server."""

    document: dict[str, Any] | None
    clusters: dict[str, ClusterState]
    pods: list[PodState]
    now: datetime
    writes: int
    created_attempts: list[int]
    sequence: int
    full: bool = False
    """Whether the queue has no quota left: it admits nobody."""

    def _uid(self) -> str:
        self.sequence += 1
        return f"u{self.sequence}"

    def change_cluster(self, name: str, **changes: Any) -> None:
        version = str(int(self.clusters[name].resource_version) + 1)
        self.clusters[name] = replace(self.clusters[name], resource_version=version, **changes)

    def _create_cluster(self, document: dict[str, Any], owners: frozenset[str]) -> None:
        assert self.document is not None
        attempt = self._begins(document)
        self._nothing_lives(attempt)
        assert not any(c.attempt != attempt for c in self.clusters.values()), "one cluster at a time"
        wanted = sum(g["replicas"] for g in document["spec"]["workerGroupSpecs"])
        name = document["metadata"]["name"]
        queued = LABEL_QUEUE in document["metadata"]["labels"]
        more = {"pods": document["metadata"]["annotations"][ANNOTATION_PODS], "template_attempt": attempt, "queued": queued}
        more |= queue(document["metadata"])
        more |= {"suspended": queued and self.full, "told_to_suspend": queued and self.full}
        self.clusters[name] = ClusterState(
            attempt, name, self._uid(), "1", owners, self.now, wanted_workers=wanted, made_from=made_from(document), **more
        )
        self.created_attempts.append(attempt)

    def _begins(self, document: dict[str, Any]) -> int:
        assert self.document is not None
        attempt = int(document["metadata"]["labels"][LABEL_ATTEMPT])
        status = self.document.get("status", {})
        assert status.get("attempt") == attempt, "the attempt is in status before anything carries it"
        assert not status.get("completionTime"), "nothing runs after the end"
        return attempt

    def _nothing_lives(self, attempt: int) -> None:
        for pod in self.pods:
            gone = pod.unreachable_since is not None and (self.now - pod.unreachable_since).total_seconds() >= 600
            assert gone or not pod.alive, f"{pod.name} is alive while attempt {attempt} is created"

    def _hand_over(self, action: HandOver) -> None:
        cluster = self.clusters.get(action.ref.name)
        seen = action.attempt if isinstance(action, Hold | Nudge) else action.seen_attempt
        if cluster is None or cluster.uid != action.uid or cluster.attempt != seen:
            raise Conflict(str(action.ref))
        self.writes += 1
        if isinstance(action, Nudge):
            self.change_cluster(cluster.name, nudged=action.at)
            return
        if isinstance(action, Hold):
            self.change_cluster(cluster.name, held=True, suspended=True, told_to_suspend=True)
            return
        attempt = self._begins(dict(action.document))
        changes: dict[str, Any] = {"attempt": attempt, "template_attempt": attempt, "made_from": made_from(dict(action.document))}
        if action.suspend is False:
            self._nothing_lives(attempt)
            assert cluster.held and cluster.emptied, "only what was held is let go, when it is empty"
            changes |= {"held": False, "told_to_suspend": False}
        elif action.suspend:
            changes |= {"suspended": True, "told_to_suspend": True}
        if attempt not in self.created_attempts:
            self.created_attempts.append(attempt)
        self.change_cluster(cluster.name, **changes)
