"""Which RayCluster the next attempt runs in, and what is written into it.

A cluster is kept for the next attempt as long as its pods are what that attempt needs: a queue that admitted it then keeps its
quota and its place. Two ways, by who suspends it and lets go:

- nobody but us: `Hold` when an attempt is over; when all its pods are gone and the back-off is over, `Begin` lets go;
- a queue: it lets go of what it admitted by itself, within a moment. So the next number is written (`Begin`) before the pods of
  this attempt go, in the same write that sends them away. Whoever let go of a cluster whose templates carry an older number
  (Kueue puts templates back when it evicts) is corrected, and the checkpoint store's fence ends such a driver.
"""

import re
from typing import Any

from lprl_api.names import Condition, Reason
from lprl_api.text import shortened
from lprl_operator.decide.actions import Action, Begin, Hold, Nudge
from lprl_operator.decide.decision import Case
from lprl_operator.decide.failures import MAX_MESSAGE, Move, Verdict
from lprl_operator.decide.observed import ClusterState, PodState
from lprl_operator.resources import naming
from lprl_operator.resources.made_from import annotated, made_from

NUDGE_S = 10.0
"""KubeRay makes a head within a second or two once it looks."""
_TIME_IS_UP = re.compile(r"^Deactivated\w*: .*maximum execution time", re.IGNORECASE)
"""What Kueue says of a Workload that it made inactive because of `max-exec-time-seconds`."""

_GIVEN_UP = re.compile(r"by its queue: (Deactivated\w*: .*)")
"""What was told of a RayCluster whose Workload is inactive."""


def home(case: Case) -> ClusterState | None:
    """The RayCluster that the next attempt can run in; None where it needs a new one (and a new admission)."""
    found = case.seen.clusters
    if len(found) != 1:
        return None
    (cluster,) = found
    if any(given_up(case, p) for p in living(case, cluster)):
        return None  # KubeRay would wait for the pod of a dead node for ever
    if cluster.deleting or cluster.refused or case.uid not in cluster.owner_uids or not cluster.pods:
        return None
    return cluster if cluster.pods == case.wanted.pods_digest(cluster.name) else None


def moves(case: Case) -> str:
    """Say that the next attempt leaves a cluster that is whole; empty where there is none."""
    cluster = next((c for c in case.seen.clusters if case.uid in c.owner_uids and not c.deleting and not c.refused), None)
    if cluster is None or case.wanted.plan is None or cluster.pods == case.wanted.pods_digest(cluster.name):
        return ""
    return f"the next attempt needs other pods than {cluster.name} has: a new RayCluster is made, and admitted anew where there is a queue"


def is_anothers(cluster: ClusterState) -> bool:
    """Whether somebody else than this operator suspends a cluster and lets go."""
    return cluster.queued or (cluster.suspended and not cluster.held)


def let_rest(case: Case, cluster: ClusterState) -> tuple[Action, ...]:
    """What is done to a cluster as soon as its attempt is over: a queue would make pods anew at once."""
    return () if is_anothers(cluster) or cluster.held else (hold(case, cluster),)


def hold(case: Case, cluster: ClusterState) -> Hold:
    """Suspend a cluster until the next attempt begins."""
    return Hold(case.ref("ray.io/v1", "RayCluster", cluster.name), cluster.uid, cluster.attempt, case.job.metadata.name)


def may_wait(case: Case, cluster: ClusterState) -> bool:
    """Whether a back-off can be waited out: nobody makes pods of the attempt that is over, and its driver runs no more."""
    if not is_anothers(cluster):
        return True
    head = case.seen.head(cluster.attempt)
    ended = head is None or not head.alive or (head.driver is not None and head.driver.state == "terminated")
    return cluster.provisioned and not cluster.suspended and ended


def documents(case: Case, name: str) -> tuple[dict[str, Any], ...]:
    """Everything the current attempt needs, its RayCluster of this name last."""
    known = case.status.training.checkpoint
    *others, cluster = case.wanted.attempt_documents(case.status.attempt, known.step if known is not None else 0, name)
    return (*others, annotated(cluster, made_from(case.job, case.status)))


def begin(document: dict[str, Any], cluster: ClusterState) -> Begin:
    """Have a cluster run the attempt it is rendered for."""
    if not is_anothers(cluster):
        suspend: bool | None = False
    else:
        suspend = None if cluster.suspended else True
    return Begin(document, cluster.uid, cluster.attempt, suspend)


def arrival(case: Case, cluster: ClusterState) -> Action | None:
    """What is to be written again into a cluster that the current attempt was written into and whose pods have not come."""
    if not _lacks(case, cluster):
        return None
    if not is_anothers(cluster):
        return hold(case, cluster)  # nobody would let go: the attempt counts as evicted
    *_, document = documents(case, cluster.name)
    return Begin(document, cluster.uid, cluster.attempt, True if _missed(case, cluster) else None)


def waits_to_be_written(case: Case, cluster: ClusterState) -> bool:
    """Whether pods of an attempt before would come from a queue's cluster if the current one were not rendered into it."""
    before = case.status.restart_not_before is None and case.status.attempt_started_at is None and not is_born_for(case, cluster)
    return before and not cluster.held and is_anothers(cluster) and _lacks(case, cluster)


def _lacks(case: Case, cluster: ClusterState) -> bool:
    return cluster.template_attempt != case.status.attempt or _missed(case, cluster)


def _missed(case: Case, cluster: ClusterState) -> bool:
    """Whether KubeRay did not see a suspension that was written: a completed one takes `provisioned` and the head."""
    attempt = case.status.attempt
    before = any(p.attempt != attempt for p in living(case, cluster))
    return not cluster.suspended and (before or (cluster.provisioned and case.seen.head(attempt) is None))


def nudges(case: Case, cluster: ClusterState) -> tuple[Action, ...]:
    """Have KubeRay look at a kept cluster that was let go and gets no head: by itself it may look only five minutes later."""
    since = max(case.status.attempt_started_at or "", cluster.nudged)
    if is_born_for(case, cluster) or case.seconds_since(since or None) < NUDGE_S:
        return ()
    ref = case.ref("ray.io/v1", "RayCluster", cluster.name)
    return (Nudge(ref, cluster.uid, cluster.attempt, case.job.metadata.name, case.stamp()),)


def out_of_queue_time(cluster: ClusterState) -> Verdict | None:
    """The end of a job that its queue let train for as long as its label allows; None for any other. It counts over the job's life."""
    if not (cluster.suspended and _TIME_IS_UP.search(cluster.queue)):
        return None
    return Verdict(
        Move.FAIL, Reason.EXECUTION_TIME_EXCEEDED, shortened(f"{cluster.name} was stopped by its queue: {cluster.queue}", MAX_MESSAGE)
    )


def taken_away(case: Case) -> Verdict | None:
    """The end of a job whose RayCluster is gone after its queue stopped it: nobody can activate it, a new one walks around it."""
    told = next((c for c in case.status.conditions if c.type == Condition.CLUSTER_READY and c.reason == Reason.QUEUED), None)
    stopped = _GIVEN_UP.search(told.message) if told is not None else None
    if stopped is None:
        return None
    message = f"{case.status.cluster} was stopped by its queue and deleted since: {stopped[1]}"
    return Verdict(Move.FAIL, Reason.CLUSTER_DELETED, shortened(message, MAX_MESSAGE))


def is_born_for(case: Case, cluster: ClusterState) -> bool:
    """Whether a cluster was made for the current attempt: whatever pods it has are of this one."""
    return cluster.name == naming.cluster(case.job.metadata.name, case.status.attempt)


def is_unused(case: Case) -> bool:
    """Whether no pod of the newest attempt was ever seen, and a queue holds whatever RayCluster it has: its number is free."""
    attempt, known = case.status.attempt, case.status
    reported = known.head or known.progress_sequence or case.progress() is not None
    if not attempt or reported or any(p.attempt == attempt for p in case.seen.pods):
        return False
    return len(case.seen.clusters) < 2 and all(
        c.attempt == attempt and c.queued and c.told_to_suspend and not c.provisioned for c in case.seen.clusters
    )


def living(case: Case, cluster: ClusterState) -> list[PodState]:
    """Pods of a cluster that may still run. What is left of another one on a dead node says nothing of this one."""
    return [p for p in case.seen.pods if p.alive and p.cluster_uid in ("", cluster.uid)]


def lingering(case: Case, keep: int | None = None) -> list[PodState]:
    """Pods that may still run, of every attempt but `keep`; those on nodes unreachable for too long are not counted."""
    return [p for p in case.seen.pods if p.attempt != keep and p.alive and not given_up(case, p)]


def given_up(case: Case, pod: PodState) -> bool:
    """Whether a pod counts as gone because its node is unreachable for too long."""
    limit = case.job.spec.failure_policy.unreachable_node_seconds
    return pod.unreachable_since is not None and (case.now - pod.unreachable_since).total_seconds() >= limit
