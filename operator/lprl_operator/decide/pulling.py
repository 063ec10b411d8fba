"""A pod that cannot have its image, or its container: for how long, and when that ends a job.

The time counts from when the trouble of that very pod was first seen, not from when the attempt began: attempts wait in queues and
run for days, and a registry has bad seconds. It is in status, so that an operator that starts anew does not begin to wait again.
"""

from lprl_api.names import Reason
from lprl_api.wire.status import PodTrouble
from lprl_operator.decide.decision import Case
from lprl_operator.decide.failures import Move, Verdict
from lprl_operator.decide.observed import ClusterState, PodState

PATIENCE_S = 600
"""Registries have bad minutes; GPUs held longer than this for an image that is not there are wasted."""


def troubled(case: Case, cluster: ClusterState) -> PodState | None:
    """A pod of the current attempt that waits for its image or container, the one noted before others; None when none does."""
    known = case.status.pod_trouble
    found = [p for p in case.seen.pods if p.attempt == cluster.attempt and p.image_pull and p.alive and not p.deleting]
    return min(found, key=lambda p: known is None or p.name != known.pod, default=None)


def noted(case: Case, cluster: ClusterState) -> Case:
    """Note since when such a pod waits; forget one that does not any more."""
    pod, known = troubled(case, cluster), case.status.pod_trouble
    if pod is None:
        return case if known is None else case.remember(pod_trouble=None)
    return case if known is not None and known.pod == pod.name else case.remember(pod_trouble=PodTrouble(pod=pod.name, since=case.stamp()))


def gives_up(case: Case, cluster: ClusterState) -> Verdict | None:
    """The end of a job whose run cannot begin because of such a pod. `case`: noted before; a run that began waits as for a lost worker."""
    pod, known = troubled(case, cluster), case.status.pod_trouble
    if pod is None or known is None or known.pod != pod.name or case.seconds_since(known.since) < PATIENCE_S:
        return None
    return Verdict(Move.FAIL, Reason.IMAGE_PULL_FAILED, f"pod {pod.name}: {pod.image_pull}")
