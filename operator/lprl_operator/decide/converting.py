"""Stage 2: make what the run reads and the source lacks. Conversions are shared: each is owned by every job that wants it.

The Indexed Job is what jobs share; its finalise Job belongs to it and goes with it.
Invariants: a conversion in progress is joined, never repeated; a finished one from before this job wanted it is deleted and run again,
which checks its digests and skips every finished shard; a failed one counts only against the jobs that owned it. One that was made
since then has checked them for this job as well: of many jobs that wait, some are always too late to join before it ends, and would
have the others begin anew.
"""

from dataclasses import dataclass

from lprl_api.model.formats import Bf16
from lprl_api.names import Condition, ExitCode, Reason
from lprl_api.spec.operations import ConversionVerify
from lprl_api.wire.answers import ConversionAnswers, Distance, settings_digest
from lprl_operator.decide import endings, given_up, priorities
from lprl_operator.decide.actions import Action, AddOwner, Create, Delete
from lprl_operator.decide.decision import LATER_S, SOON_S, Case, Count, Decision, Finding, parse_time
from lprl_operator.decide.failures import Move, Verdict, job_verdict, parse_termination
from lprl_operator.decide.inspecting import next_number, refusal, refusal_note, trouble
from lprl_operator.decide.observed import JobState
from lprl_operator.decide.requeueing import relabelled
from lprl_operator.resources import metadata, naming
from lprl_operator.resources.conversions import Conversion
from lprl_operator.resources.made_from import annotated, is_outdated, made_from, read


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
    """Get every conversion made; None when they are (an attempt on the same claims proves that they were)."""
    wanted = case.wanted.conversions()
    prepared = case.status.attempt > 0 and case.status.prepared_claims in (None, made_from(case.job).claims)
    if prepared or not wanted:
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
        actions += tuple(Create(d) for d in case.wanted.surroundings(next_number(case)))
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
    if (foreign := _foreign(convert, final)) is not None:
        return Step(Reason.WAITING_FOR_CONVERSION, f"waits for Job {foreign.name}, which no job of this kind made, to be gone")
    if (over := given_up.conversion(case, convert, final)) is not None:
        return Step(Reason.CONVERSION_FAILED, over.message, failed=over)
    stale = _stale(case, convert, final)
    if stale is not None:
        return stale
    if convert is None:
        create = Create(annotated(case.wanted.convert_document(conversion), made_from(case.job)))
        return Step(Reason.CONVERTING, "the conversion Job is being created", actions=(create,))
    if final is not None and final.finished == "Complete":
        return (
            _above(case, conversion, final)
            or _measured(case, conversion, final)
            or Step(Reason.CONVERTED, str(conversion.target), conversion.shards, done=True)
        )
    for job in (final, convert):
        if job is not None and job.finished == "Failed":
            return Step(Reason.CONVERSION_FAILED, job.message, failed=job_verdict(job, Reason.CONVERSION_FAILED))
    if (again := _corrected(case, convert, final)) is not None:
        return again
    joins = (*_join(case, convert), *priorities.raised(case, convert, final), *_moved(case, convert))
    if final is not None:
        return Step(Reason.FINALISING, trouble(final) or "verifying and publishing", conversion.shards, joins)
    done = sum(len(range(i, conversion.shards, convert.completions)) for i in convert.completed)
    if convert.finished != "Complete":
        return Step(_running_reason(convert), _words(convert, conversion, done), done, joins)
    document = priorities.inherited(case.wanted.finalise_document(conversion, convert.uid), convert)
    create = Create(annotated(document, made_from(case.job)))
    return Step(Reason.FINALISING, "all shards are converted", done, (*joins, create))


def _above(case: Case, conversion: Conversion, final: JobState) -> Step | None:
    """What this job's limit of weight errors keeps a finished conversion from; None where there is none, or it is kept."""
    limit = case.job.spec.conversion.max_relative_rms_error
    if limit is None or isinstance(conversion.config.format, Bf16):
        return None
    said = [parse_termination(end.message) for end in final.exits if end.exit_code == ExitCode.OK]
    found = next((t.largest_error for t in said if t is not None and t.largest_error is not None), None)
    if found is None:
        return _ask_again(case, conversion, final, "the errors of weights")
    if not found.is_above(limit):
        return None
    what = (
        f"conversion.maxRelativeRmsError: tensor {found.tensor}: relative RMS error {found.words()} is above the limit {limit:g}; "
        "raise the limit, or keep the module in high precision with precision.excludeModules"
    )
    return Step(Reason.CONVERSION_FAILED, what, failed=Verdict(Move.FAIL, Reason.USER_ERROR, what))


def _measured(case: Case, conversion: Conversion, final: JobState) -> Step | None:
    """What a finished conversion's answers keep it from: figures that were not measured, not readable, or above this job's limit.

    The finalise Job is shared and measures what the job that made it asked for; another job's wish is measured by a Job of its own,
    after it. None where nothing is asked for, or all is well.
    """
    wish = case.job.spec.conversion.verify
    if conversion.config.verify is None or wish is None:
        return None
    found = answers_of(final, wish)
    known = case.status.conversion.answers
    if found is None and (known is None or known.settings != settings_digest(wish)):
        return _ask_again(case, conversion, final, "the answers")
    if found is None:
        return None
    if found.problem or found.distance is None:
        what = f"conversion.verify: {found.problem or 'no figures'}"
        return Step(Reason.CONVERSION_FAILED, what, failed=Verdict(Move.FAIL, Reason.USER_ERROR, what))
    if wish.max_kl is not None and found.distance.kl_mean > wish.max_kl:
        what = limit_passed(found, wish.max_kl, found.distance)
        return Step(Reason.CONVERSION_FAILED, what, failed=Verdict(Move.FAIL, Reason.USER_ERROR, what))
    return None


def _ask_again(case: Case, conversion: Conversion, final: JobState, what: str) -> Step:
    """Replace a finalise Job that did not say `what`; one that was this very job's should have said it."""
    made = read(final.made_from)
    reported = any(end.exit_code == ExitCode.OK for end in final.exits)  # a pod that is gone took its report with it: the file is left
    if reported and made is not None and (made.uid, made.generation) == (case.uid, case.job.metadata.generation):
        told = f"Job {final.name} finished without a word on {what}; does its image match the operator's version?"
        return Step(Reason.CONVERSION_FAILED, told, failed=Verdict(Move.FAIL, Reason.CONVERSION_FAILED, told))
    delete = Delete(case.ref("batch/v1", "Job", final.name), final.uid)
    return Step(Reason.FINALISING, f"measuring what the conversion does to {what}", conversion.shards, (delete,))


def answers_of(final: JobState, wish: ConversionVerify) -> ConversionAnswers | None:
    """The answers a finished finalise Job reports, None where it measured nothing or something else."""
    said = [parse_termination(end.message) for end in final.exits if end.exit_code == ExitCode.OK]
    answers = next((t.answers for t in said if t is not None and t.answers is not None), None)
    return answers if answers is not None and answers.settings == settings_digest(wish) else None


def limit_passed(found: ConversionAnswers, limit: float, distance: Distance) -> str:
    """The refusal of a conversion by its answers: figures, and what to do."""
    figures = f"mean KL {distance.kl_mean:.3g} nats (p99 {distance.kl_p99:.3g}, top-1 agreement {distance.top1_agreement:.1%})"
    told = f"conversion.verify.maxKl: {figures} is above {limit:g}"
    fits = next((a.text for a in found.advice if a.kl_mean is not None and a.kl_mean <= limit), None)
    return f"{told}; {fits or 'take a finer format, train for it (int4-qat, fp8-qat), or raise the limit'}"


def _corrected(case: Case, convert: JobState, final: JobState | None) -> Step | None:
    """A Job whose pods wait and that this job alone wants is made anew when the job was corrected; finished shards are kept."""
    job = final or convert
    waits = not job.finished and not job.running and not job.deleting
    if not waits or convert.owner_uids != {case.uid} or not is_outdated(job.made_from, case.job):
        return None
    delete = Delete(case.ref("batch/v1", "Job", job.name), job.uid, job.resource_version)
    return Step(Reason.CORRECTED, f"{job.name} is made anew from the corrected spec", actions=(delete,))


def _foreign(convert: JobState | None, final: JobState | None) -> JobState | None:
    """A Job of such a name that is somebody else's: neither joined, which would have garbage collection delete it, nor deleted."""
    if convert is not None and convert.foreign:
        return convert
    stray = final is not None and (final.foreign or naming.finalise_job(final.owner_job) != final.name)
    return final if stray else None


def _stale(case: Case, convert: JobState | None, final: JobState | None) -> Step | None:
    """What stands in the way: Jobs on their way out, a finalise Job of an earlier conversion, ended ones that this job had no part in."""
    leftover = final is not None and (convert is None or convert.uid not in final.owner_uids)
    ended = convert is not None and (convert.finished == "Failed" or (final is not None and not leftover and bool(final.finished)))
    foreign = ended and convert is not None and case.uid not in convert.owner_uids and not _checked_since(case, convert, final)
    doomed = [j for j, bad in ((convert, foreign), (final, foreign or leftover)) if j is not None and (bad or j.deleting)]
    if not doomed:
        return None
    deletes = tuple(Delete(case.ref("batch/v1", "Job", j.name), j.uid, j.resource_version) for j in doomed if not j.deleting)
    names = ", ".join(j.name for j in doomed)
    return Step(Reason.WAITING_FOR_CONVERSION, f"waits for the earlier conversion ({names}) to be gone", actions=deletes)


def _checked_since(case: Case, convert: JobState, final: JobState | None) -> bool:
    """Whether a conversion was begun after this job was last let go on, and has ended well."""
    since = case.status.active_since
    well = convert.finished == "Complete" and final is not None and final.finished == "Complete"
    return well and since is not None and convert.created is not None and convert.created >= parse_time(since)


def _join(case: Case, convert: JobState) -> tuple[Action, ...]:
    if case.uid in convert.owner_uids:
        return ()
    return (AddOwner(case.ref("batch/v1", "Job", convert.name), convert.uid, metadata.owner(case.job, controller=False)),)


def _moved(case: Case, convert: JobState) -> tuple[Action, ...]:
    """Have a held conversion that this job alone wants follow the job's labels; a shared one stays where its first owner put it."""
    alone = convert.owner_uids == {case.uid} and convert.suspended and not convert.finished
    return relabelled(case, convert) if alone else ()


def _running_reason(job: JobState) -> str:
    return Reason.WAITING_FOR_CONVERSION if job.suspended else Reason.CONVERTING


def _words(job: JobState, conversion: Conversion, done: int) -> str:
    text = f"{conversion.config.format.kind}: {done}/{conversion.shards} shards"
    problem = trouble(job)
    return f"{text}; {problem}" if problem else text
