"""Stage 1: what is the source? One Job, whose termination message is an Inspection."""

from pydantic import ValidationError

from lprl_api.model.model_shape import Inspection
from lprl_api.names import Condition, Reason
from lprl_api.spec.job import LowPrecisionRLJob
from lprl_operator.decide import endings, given_up
from lprl_operator.decide.actions import Action, Create, Delete
from lprl_operator.decide.decision import LATER_S, SOON_S, Case, Decision, Finding
from lprl_operator.decide.failures import Move, Verdict, job_verdict
from lprl_operator.decide.observed import JobState, Observed
from lprl_operator.decide.requeueing import relabelled
from lprl_operator.resources.made_from import annotated, is_outdated, made_from, on_other_claims


def inspection_of(seen: Observed, job: LowPrecisionRLJob) -> Inspection | None:
    """The inspection a finished inspect Job of this job, on these claims, reported; None while there is none that can be read."""
    found = seen.inspect
    if found is None or found.finished != "Complete" or job.metadata.uid not in found.owner_uids or on_other_claims(found.made_from, job):
        return None
    for end in found.exits:
        try:
            return Inspection.model_validate_json(end.message)
        except ValidationError:
            continue
    return None


def inspect_stage(case: Case) -> Decision | None:
    """Get the source inspected; None when its inspection is known."""
    if case.status.inspection is not None:
        return None
    job = case.seen.inspect
    if (over := given_up.inspection(case, job)) is not None:
        return _failed(case, over)
    if job is None:
        refused = refusal(case, "Job", Reason.INSPECTION_FAILED, Condition.INSPECTED)
        if refused is not None:
            return refused
        return _waiting(case, "the inspect Job is being created", (Create(annotated(case.wanted.inspect_document(), made_from(case.job))),))
    if case.uid not in job.owner_uids or job.deleting:
        whose = f"Job {job.name} of before" if case.uid in job.owner_uids else f"Job {job.name}, which is not this job's,"
        return _waiting(case, f"waits for {whose} to be gone")
    waits = not job.finished and not job.running
    if (waits and is_outdated(job.made_from, case.job)) or (job.finished and on_other_claims(job.made_from, case.job)):
        again = Delete(case.ref("batch/v1", "Job", job.name), job.uid)
        return _waiting(case, f"{job.name} is made anew from the corrected spec", (again,), Reason.CORRECTED)
    if job.finished == "Failed":
        return _failed(case, job_verdict(job, Reason.INSPECTION_FAILED))
    if job.finished == "Complete":
        message = f"Job {job.name} finished without a report that can be read; does its image match the operator's version?"
        return _failed(case, Verdict(Move.FAIL, Reason.INSPECTION_FAILED, message))
    decision = _waiting(case, trouble(job) or "reading the source model")
    return Decision(decision.memory, decision.findings, relabelled(case, job), decision.requeue_seconds)


def inspected(case: Case, inspection: Inspection) -> Finding:
    """The condition once this stage is passed: what the source is, and what is resumed of an earlier job of this name."""
    size = f"{inspection.total_bytes / 1e9:.2f} GB in {inspection.shards} shards, {inspection.shape.architecture}"
    earlier = inspection.earlier
    if earlier is None or earlier.checkpoint is None or earlier.uid == case.uid:
        return Finding(Condition.INSPECTED, "True", Reason.INSPECTED, size)
    uid = f"uid {earlier.uid}" if earlier.uid else "its version noted no uid"
    step, steps = earlier.checkpoint.step, case.job.spec.algorithm.steps
    told = f"resumed from step {step} of an earlier job of this name ({uid})"
    told += f", which made all {steps} steps: nothing is left to do" if step >= steps else ""
    return Finding(Condition.INSPECTED, "True", Reason.RESUMES_EARLIER_JOB, f"{told}; {size}")


def next_number(case: Case) -> int:
    """Number of the next attempt: above every one of this job that had pods, and above what an earlier job of this name reached."""
    inspection = case.status.inspection
    earlier = inspection.earlier.attempt if inspection is not None and inspection.earlier is not None else 0
    return (case.status.attempt or earlier) + (not case.status.attempt_unused)


def trouble(job: JobState) -> str:
    """Why a Job does not get on, in words; empty when nothing is wrong."""
    if job.image_pull:
        return f"{Reason.IMAGE_PULL_FAILED}: {job.image_pull}"
    if job.suspended:
        return f"queued: {job.queue or 'waiting for admission'}"
    if job.refused:
        return f"pod refused, trying again: {job.refused}"
    if job.stuck:
        return f"its container cannot start: {job.stuck}"
    return f"not scheduled: {job.scheduling}" if job.scheduling else ""


def refusal(case: Case, kind: str, reason: str, condition: str, name: str | None = None) -> Decision | None:
    """What a refused create means: the end when the object itself is wrong, another try later when a quota is full."""
    found = next((r for r in case.seen.refusals if r.ref.kind == kind and name in (None, r.ref.name)), None)
    if found is None or not found.permanent:
        return None
    message = f"{found.ref} was refused: {found.message}"
    return endings.fail(case, Verdict(Move.FAIL, reason, message), Finding(condition, "False", reason, message))


def refusal_note(case: Case) -> str:
    """Refused creates that will be tried again, in words."""
    return "; ".join(f"{r.ref} refused, trying again: {r.message}" for r in case.seen.refusals if not r.permanent)


def _waiting(case: Case, message: str, actions: tuple[Action, ...] = (), reason: str = Reason.INSPECTING) -> Decision:
    note = refusal_note(case)
    findings = (
        Finding(Condition.INSPECTED, "False", reason, note or message),
        Finding(Condition.PROGRESSING, "False", Reason.NOT_STARTED),
    )
    return Decision(case.status, findings, actions, SOON_S if actions and not note else LATER_S)


def _failed(case: Case, verdict: Verdict) -> Decision:
    return endings.fail(case, verdict, Finding(Condition.INSPECTED, "False", Reason.INSPECTION_FAILED, verdict.message))
