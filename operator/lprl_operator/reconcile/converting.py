"""Stage 2: make what the run reads and the source lacks. Conversions are shared: each is owned by every job that wants it.

Invariants: a conversion in progress is joined, never repeated; a finished one that this job had no part in is deleted and run
again, which checks its digests and skips every finished shard; a failed one counts only against the jobs that owned it.
"""

from dataclasses import dataclass

from lprl_api.names import Condition, ExitCode, Reason
from lprl_operator.reconcile import endings
from lprl_operator.reconcile.actions import Action, AddOwner, Create, Delete, Document, ref_of
from lprl_operator.reconcile.decision import LATER_S, SOON_S, Case, Count, Decision, Finding
from lprl_operator.reconcile.failures import Verdict, job_verdict, parse_termination
from lprl_operator.reconcile.inspecting import refusal, refusal_note, trouble
from lprl_operator.reconcile.observed import JobState
from lprl_operator.resources import metadata, naming
from lprl_operator.resources.conversions import Conversion


@dataclass(frozen=True, slots=True)
class Step:
    """How far one conversion is."""

    reason: str
    message: str
    shards_done: int = 0
    actions: tuple[Action, ...] = ()
    failed: Verdict | None = None
    done: bool = False


def convert_stage(case: Case) -> Decision | None:
    """Get every conversion made; None when they are (an attempt proves that they were)."""
    wanted = case.wanted.conversions()
    if case.status.attempt > 0 or not wanted:
        return None
    refused = refusal(case, "Job", Reason.CONVERSION_FAILED, Condition.CONVERTED)
    if refused is not None:
        return refused
    steps = [_step(case, conversion) for conversion in wanted]
    shards = Count(sum(s.shards_done for s in steps), sum(c.shards for c in wanted))
    failed = next((s.failed for s in steps if s.failed is not None), None)
    if failed is not None:
        return endings.fail(case, failed, Finding(Condition.CONVERTED, "False", Reason.CONVERSION_FAILED, failed.message))
    if all(s.done for s in steps):
        return None
    open_step = next(s for s in steps if not s.done)
    actions = tuple(a for s in steps for a in s.actions)
    if actions:  # while the conversion takes its time, what the first attempt needs beside its cluster is made
        actions += tuple(Create(d) for d in case.wanted.surroundings(1))
    note = refusal_note(case)
    findings = (
        Finding(Condition.CONVERTED, "False", open_step.reason, note or open_step.message),
        Finding(Condition.PROGRESSING, "False", Reason.NOT_STARTED),
    )
    return Decision(case.status, findings, actions, SOON_S if actions and not note else LATER_S, shards=shards)


def converted(case: Case) -> Finding:
    """The condition once this stage is passed."""
    wanted = case.wanted.conversions()
    if not wanted:
        return Finding(Condition.CONVERTED, "True", Reason.CONVERSION_NOT_NEEDED, "the source is read as it is")
    folders = ", ".join(str(c.target) for c in wanted)
    reused = all(_was_there(case, c) for c in wanted)
    return Finding(Condition.CONVERTED, "True", Reason.CONVERSION_REUSED if reused else Reason.CONVERTED, folders)


def _was_there(case: Case, conversion: Conversion) -> bool:
    """Whether every index found its shards converted already."""
    job = case.seen.jobs.get(conversion.name)
    ends = [parse_termination(e.message) for e in job.exits if e.exit_code == ExitCode.OK] if job is not None else []
    return bool(ends) and all(t is not None and t.reason == Reason.CONVERSION_REUSED for t in ends)


def _step(case: Case, conversion: Conversion) -> Step:
    convert = case.seen.jobs.get(conversion.name)
    final = case.seen.jobs.get(naming.finalise_job(conversion.name))
    stale = _stale(case, convert, final)
    if stale is not None:
        return stale
    if final is not None and final.finished == "Complete":
        return Step(Reason.CONVERTED, str(conversion.target), conversion.shards, _join(case, final), done=True)
    for job in (final, convert):
        if job is not None and job.finished == "Failed":
            return Step(Reason.CONVERSION_FAILED, job.message, failed=job_verdict(job, Reason.CONVERSION_FAILED))
    if final is not None:
        joins = (*(_join(case, convert) if convert is not None else ()), *_join(case, final))
        return Step(Reason.FINALISING, trouble(final) or "verifying and publishing", conversion.shards, joins)
    if convert is None:
        creates = _creates(case, case.wanted.convert_documents(conversion))
        return Step(Reason.CONVERTING, "the conversion Job is being created", actions=creates)
    done = sum(len(range(i, conversion.shards, convert.completions)) for i in convert.completed)
    if convert.finished != "Complete":
        return Step(_running_reason(convert), _words(convert, conversion, done), done, _join(case, convert))
    creates = _creates(case, case.wanted.finalise_documents(conversion))
    return Step(Reason.FINALISING, "all shards are converted", done, (*_join(case, convert), *creates))


def _creates(case: Case, documents: tuple[Document, ...]) -> tuple[Action, ...]:
    """Create ConfigMap and Job; a ConfigMap that is there already becomes ours too, or its owner's deletion would take it."""
    config_map, job = documents
    mine = metadata.owner(case.job, controller=False)
    return Create(config_map), AddOwner(ref_of(config_map), None, mine), Create(job)


def _stale(case: Case, convert: JobState | None, final: JobState | None) -> Step | None:
    """What stands in the way: Jobs on their way out, or ended ones that this job had no part in."""
    jobs = [j for j in (convert, final) if j is not None]
    going = [j for j in jobs if j.deleting]
    ours = any(case.uid in j.owner_uids for j in jobs)
    ended = (final is not None and (final.finished or convert is None)) or (convert is not None and convert.finished == "Failed")
    if not going and (ours or not ended):
        return None
    deletes = tuple(Delete(case.ref("batch/v1", "Job", j.name), j.uid, j.resource_version) for j in jobs if not j.deleting and not ours)
    names = ", ".join(j.name for j in jobs)
    return Step(Reason.WAITING_FOR_CONVERSION, f"waits for the earlier conversion ({names}) to be gone", actions=deletes)


def _join(case: Case, job: JobState) -> tuple[Action, ...]:
    if case.uid in job.owner_uids:
        return ()
    owner = metadata.owner(case.job, controller=False)
    found: tuple[Action, ...] = (AddOwner(case.ref("batch/v1", "Job", job.name), job.uid, owner),)
    if job.config_map:
        found += (AddOwner(case.ref("v1", "ConfigMap", job.config_map), None, owner),)
    return found


def _running_reason(job: JobState) -> str:
    return Reason.WAITING_FOR_CONVERSION if job.suspended else Reason.CONVERTING


def _words(job: JobState, conversion: Conversion, done: int) -> str:
    text = f"{conversion.config.format.kind}: {done}/{conversion.shards} shards"
    problem = trouble(job)
    return f"{text}; {problem}" if problem else text
