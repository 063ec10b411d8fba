"""A shared conversion has the highest priority among those who wait for it: each of them raises it to its own, none lowers it.

What a class is worth is known from the Workloads of the namespace: a job's own inspection had one of its class.
"""

from typing import Any

from lprl_api.names import LABEL_PRIORITY
from lprl_operator.decide.actions import Action, Document, Raise
from lprl_operator.decide.decision import Case
from lprl_operator.decide.observed import JobState


def raised(case: Case, *jobs: JobState | None) -> tuple[Action, ...]:
    """Give what a queue holds of a conversion this job's priority class, where that is the higher one."""
    wanted = case.job.metadata.labels.get(LABEL_PRIORITY, "")
    mine = [j for j in jobs if j is not None and not j.finished and not j.deleting and _is_above(wanted, j)]
    name = case.job.metadata.name
    return tuple(Raise(case.ref("batch/v1", "Job", j.name), j.uid, j.resource_version, name, wanted) for j in mine if _is_joined(case, j))


def inherited(document: Document, convert: JobState) -> dict[str, Any]:
    """Return the finalise Job with the priority class that its conversion has by now."""
    meta = document["metadata"]
    labels = meta["labels"] | ({LABEL_PRIORITY: convert.priority_class} if convert.priority_class else {})
    return {**document, "metadata": {**meta, "labels": labels}}


def _is_above(wanted: str, job: JobState) -> bool:
    """Whether a class ranks above what a held Job has. The queue may not have followed its label yet, so that counts, too."""
    mine, known = job.ranks.get(wanted), job.ranks.get(job.priority_class)
    if not job.suspended or mine is None or job.priority is None or (job.priority_class and known is None):
        return False
    return mine > max(job.priority, job.priority if known is None else known)


def _is_joined(case: Case, job: JobState) -> bool:
    """Whether the Job is this job's as well, or a finalise Job: joining it changes its version."""
    return case.uid in job.owner_uids or bool(job.owner_job)
