"""The job's labels of queue and priority, put on its own objects after they were made: labels are no part of the spec.

Kueue follows a priority class at once, whether an object waits or runs; another queue it takes only from what it holds. A RayCluster
moves when the job is suspended and resumed, which makes a new one; nothing else would let go of a held inspection.
"""

from lprl_api.names import LABEL_PRIORITY, LABEL_QUEUE
from lprl_operator.decide.actions import Relabel
from lprl_operator.decide.decision import Case
from lprl_operator.decide.observed import ClusterState, JobState
from lprl_operator.resources import metadata


def relabelled(case: Case, seen: JobState | ClusterState) -> tuple[Relabel, ...]:
    """Give an object of this job alone the queue and the priority class that the job has now; a label that was taken away stays.

    What is in no queue is left out of them.
    """
    wanted = _wanted(case, seen)
    known = {LABEL_QUEUE: seen.queue_name, LABEL_PRIORITY: seen.priority_class}
    changes = tuple((key, wanted[key]) for key in known if wanted.get(key, known[key]) not in ("", known[key]))
    if not _moves(seen):
        changes = tuple(c for c in changes if c[0] == LABEL_PRIORITY)
    if not changes or not seen.queue_name or seen.deleting or case.uid not in seen.owner_uids:
        return ()
    kind = ("ray.io/v1", "RayCluster") if isinstance(seen, ClusterState) else ("batch/v1", "Job")
    return (Relabel(case.ref(*kind, seen.name), seen.uid, seen.resource_version, case.job.metadata.name, changes),)


def _wanted(case: Case, seen: JobState | ClusterState) -> dict[str, str]:
    return metadata.queue_labels(case.job) if isinstance(seen, ClusterState) else metadata.preparing_queue_labels(case.job)


def _moves(seen: JobState | ClusterState) -> bool:
    """Whether it may change its queue: a Job that is held. A RayCluster's is changed by suspending and resuming the job."""
    return isinstance(seen, JobState) and seen.suspended
