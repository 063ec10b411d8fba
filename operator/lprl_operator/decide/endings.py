"""How a job ends, and what is left to do afterwards. What is known is recorded before the evidence is deleted."""

from lprl_api import names
from lprl_api.names import Condition, Reason
from lprl_api.wire.status import FailureRecord, LowPrecisionRLJobStatus
from lprl_operator.decide.actions import Action, Delete, DeleteOwned, RemoveOwner
from lprl_operator.decide.decision import SOON_S, Case, ConditionValue, Decision, Finding
from lprl_operator.decide.failures import Verdict
from lprl_operator.decide.observed import JobState

HISTORY = 10
"""Failure records kept in status."""


def finished(status: LowPrecisionRLJobStatus) -> bool:
    """Whether the job ended for good (an invalid spec is not an end: it can be corrected before the start)."""
    return status.completion_time is not None


def fail(case: Case, verdict: Verdict, *more: Finding) -> Decision:
    """End the job as failed."""
    memory = record(case, verdict).remember(completion_time=case.stamp()).status
    findings = (
        Finding(Condition.FAILED, "True", verdict.reason, verdict.message),
        Finding(Condition.COMPLETE, "False", Reason.NOT_FINISHED),
        Finding(Condition.PROGRESSING, "False", verdict.reason, verdict.message),
        Finding(Condition.SUSPENDED, "False", Reason.NOT_SUSPENDED),
        Finding(Condition.CLUSTER_READY, "False", Reason.CLUSTER_DELETED if case.status.attempt else Reason.NOT_STARTED),
    )
    known = {f.type for f in more}
    kept = (*more, *(f for f in (*findings, *_unjudged(case, verdict)) if f.type not in known))
    return Decision(pause(case, memory), kept, cleanup(case), SOON_S)


def _unjudged(case: Case, verdict: Verdict) -> tuple[Finding, ...]:
    """A spec whose model was never seen is not valid for ever after: its input is wrong, or nobody knows."""
    if case.wanted.plan is not None or case.problem is not None:
        return ()
    value: ConditionValue = "False" if verdict.reason == Reason.USER_ERROR else "Unknown"
    return (Finding(Condition.VALIDATED, value, verdict.reason, f"never held against the model: {verdict.message}"),)


def succeed(case: Case, verdict: Verdict) -> Decision:
    """End the job as done."""
    memory = case.remember(completion_time=case.stamp()).status
    findings = (
        Finding(Condition.COMPLETE, "True", Reason.SUCCEEDED, verdict.message),
        Finding(Condition.FAILED, "False", Reason.SUCCEEDED),
        Finding(Condition.PROGRESSING, "False", Reason.FINISHED, verdict.message),
        Finding(Condition.SUSPENDED, "False", Reason.NOT_SUSPENDED),
        Finding(Condition.CLUSTER_READY, "False", Reason.CLUSTER_DELETED if case.status.attempt else Reason.NOT_STARTED),
    )
    return Decision(pause(case, memory), findings, cleanup(case), SOON_S)


def after_the_end(case: Case) -> Decision:
    """Release what is left; when the time to live is over, delete the job itself."""
    ttl = case.job.spec.ttl_seconds_after_finished
    left = None if ttl is None else ttl - case.seconds_since(case.status.completion_time)
    if left is not None and left <= 0:
        myself = case.ref(names.API_VERSION, names.KIND, case.job.metadata.name)
        over = Finding(Condition.PROGRESSING, "False", Reason.TTL_EXPIRED, f"deleted {ttl} s after the end")
        return Decision(case.status, (over,), (Delete(myself, case.uid),), None)
    actions = cleanup(case)
    return Decision(case.status, (), actions, SOON_S if actions else left)


def record(case: Case, verdict: Verdict) -> Case:
    """Add a failure of the current attempt to the history."""
    status = case.status
    step = reached_step(case)
    entry = FailureRecord(attempt=status.attempt, reason=verdict.reason, message=verdict.message, step=step, time=case.stamp())
    return case.remember(failures=(*status.failures, entry)[-HISTORY:])


def reached_step(case: Case) -> int:
    """Newest step known of the run."""
    progress = case.progress()
    return max(case.status.training.step, progress.step if progress is not None else 0)


def pause(case: Case, memory: LowPrecisionRLJobStatus) -> LowPrecisionRLJobStatus:
    """Stop the clock of the active deadline."""
    spent = memory.active_seconds + max(0, int(case.seconds_since(memory.active_since)))
    return memory.model_copy(update={"active_seconds": spent, "active_since": None})


def cleanup(case: Case) -> tuple[Action, ...]:
    """Delete RayClusters and unfinished Jobs of ours; leave shared conversions to their other owners."""
    return (*delete_clusters(case), *release_jobs(case))


def delete_clusters(case: Case) -> tuple[Action, ...]:
    """Delete every RayCluster of the job that is not being deleted already, and what protects its pods.

    Of the job, not of its name: garbage collection takes those of an earlier one, and nobody takes somebody else's. One whose
    attempt's number is to be used again goes only as it was seen: whoever lets go of it meanwhile has pods of that number made.
    """
    found: list[Action] = []
    for cluster in case.seen.clusters:
        if not cluster.deleting and case.uid in cluster.owner_uids:
            version = cluster.resource_version if case.status.attempt_unused else None
            found += [*delete_budget(case, cluster.name), Delete(case.ref("ray.io/v1", "RayCluster", cluster.name), cluster.uid, version)]
    return tuple(found)


def delete_budget(case: Case, cluster: str) -> tuple[Action, ...]:
    """Delete the PodDisruptionBudget of a cluster, where clusters have one."""
    wanted = case.wanted.settings.pod_disruption_budget
    return (DeleteOwned(case.ref("policy/v1", "PodDisruptionBudget", cluster), case.uid),) if wanted else ()


def release_jobs(case: Case) -> tuple[Action, ...]:
    """Stop wanting unfinished inspect and conversion Jobs."""
    found: list[Action] = []
    inspect = case.seen.inspect
    if inspect is not None and case.uid in inspect.owner_uids and not inspect.finished and not inspect.deleting:
        found.append(Delete(case.ref("batch/v1", "Job", inspect.name), inspect.uid))
    for job in case.seen.jobs.values():
        if case.uid in job.owner_uids and not job.deleting:
            found += _stop_finalising(case, job) if job.finished == "Complete" else [_release(case, job)]
    return tuple(found)


def _stop_finalising(case: Case, convert: JobState) -> list[Action]:
    """A finished conversion that nobody else wants need not be published now; what is converted stays converted."""
    final = next((j for j in case.seen.jobs.values() if convert.uid in j.owner_uids), None)
    if final is None or final.finished or final.deleting:
        return []
    if convert.owner_uids != {case.uid}:
        return [_release(case, convert)]
    return [Delete(case.ref("batch/v1", "Job", final.name), final.uid, final.resource_version)]


def _release(case: Case, job: JobState) -> Action:
    ref = case.ref("batch/v1", "Job", job.name)
    if job.owner_uids == {case.uid}:
        return Delete(ref, job.uid, job.resource_version)
    return RemoveOwner(ref, job.uid, job.resource_version, case.uid)
