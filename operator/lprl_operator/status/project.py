"""PURE: decision and snapshot -> the whole status. The phase is read off the conditions and never read back."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from lprl_api.base import MAX_STRING
from lprl_api.errors import UserError
from lprl_api.names import Condition, Reason
from lprl_api.text import one_line, shortened
from lprl_api.wire.answers import AnswersStatus
from lprl_api.wire.progress import Progress
from lprl_api.wire.status import ConditionStatus, ConversionStatus, LowPrecisionRLJobStatus, NodesStatus, Phase, PlanStatus, TrainingStatus
from lprl_operator.decide.converting import answers_of
from lprl_operator.decide.decision import Case, ConditionValue, Decision, Finding, format_time
from lprl_operator.resources import naming
from lprl_operator.status import conditions as of
from lprl_operator.status import episodes, rewards

_STABILITY: dict[str, tuple[ConditionValue, str]] = {
    "measuring": ("Unknown", Reason.MEASURING_BASELINE),
    "stable": ("True", Reason.STABLE),
    "drifting": ("False", Reason.MISMATCH_DRIFT),
    "corrected": ("False", Reason.CORRECTION_ENABLED),
    "held": ("False", Reason.UPDATES_HELD),
    "rolled-back": ("False", Reason.ROLLED_BACK),
    "fallback-bf16": ("False", Reason.FELL_BACK_TO_BF16),
}


def project(case: Case, decision: Decision) -> LowPrecisionRLJobStatus:
    """Return the status to publish. Equal inputs, an equal status: a second look without a change writes nothing."""
    memory = decision.memory
    progress = _progress(case, memory)
    findings = (*decision.findings, *_stability(progress), *rewards.finding(progress, memory.conditions))
    generation = case.job.metadata.generation
    found = of.set_conditions(memory.conditions, findings, case.stamp(), generation)
    return memory.model_copy(
        update={
            "observed_generation": generation,
            "phase": phase(found),
            "conditions": found,
            "precision": case.job.spec.precision.label,
            "effective_precision": _effective(case, progress) or memory.effective_precision,
            "plan": _plan(case, memory.plan),
            "conversion": _conversion(case, decision, memory, found),
            "nodes": _nodes(case, decision, memory),
            "training": _training(case, _resumed(memory), progress),
            "message": _line(found),
        }
    )


def refuse(document: Mapping[str, Any], before: LowPrecisionRLJobStatus, error: UserError, now: datetime) -> LowPrecisionRLJobStatus:
    """Return the status of a job whose spec does not parse. One that runs already is left running: only its spec is refused."""
    message_text = f"{error.message}; {error.remedy}" if error.remedy else error.message
    findings = [Finding(Condition.VALIDATED, "False", Reason.INVALID_SPEC, message_text)]
    if before.attempt == 0 and before.completion_time is None:
        findings.append(Finding(Condition.FAILED, "True", Reason.INVALID_SPEC, message_text))
    generation = document["metadata"].get("generation", 0)
    found = of.set_conditions(before.conditions, findings, format_time(now), generation)
    update = {"observed_generation": generation, "conditions": found, "phase": phase(found), "message": _line(found)}
    return before.model_copy(update=update)


def phase(conditions: Sequence[ConditionStatus]) -> Phase:
    """Return the one word for people."""
    if of.is_true(conditions, Condition.FAILED):
        return Phase.FAILED
    if of.is_true(conditions, Condition.COMPLETE):
        return Phase.SUCCEEDED
    if of.is_true(conditions, Condition.SUSPENDED):
        return Phase.SUSPENDED
    never = of.reason(conditions, Condition.PROGRESSING) == Reason.NOT_STARTED
    if of.is_true(conditions, Condition.PROGRESSING) or (_is_suspending(conditions) and not never):
        return Phase.RUNNING
    if not of.is_true(conditions, Condition.INSPECTED):
        return Phase.INSPECTING if of.find(conditions, Condition.INSPECTED) is not None else Phase.PENDING
    if not of.is_true(conditions, Condition.CONVERTED):
        return Phase.CONVERTING
    if of.reason(conditions, Condition.PROGRESSING) in (Reason.RESTARTING, Reason.BACKING_OFF):
        return Phase.RESTARTING
    return Phase.PROVISIONING


def message(conditions: Sequence[ConditionStatus]) -> str:
    """Return what the MESSAGE column says: of the condition that decides the phase."""
    order = {
        Phase.FAILED: Condition.FAILED,
        Phase.SUCCEEDED: Condition.COMPLETE,
        Phase.SUSPENDED: Condition.SUSPENDED,
        Phase.RUNNING: Condition.PROGRESSING,
        Phase.INSPECTING: Condition.INSPECTED,
        Phase.CONVERTING: Condition.CONVERTED,
        Phase.RESTARTING: Condition.PROGRESSING,
        Phase.PROVISIONING: Condition.CLUSTER_READY,
        Phase.PENDING: Condition.VALIDATED,
    }
    text = of.message(conditions, Condition.SUSPENDED if _is_suspending(conditions) else order[phase(conditions)])
    return f"{text}; {hint}" if (hint := rewards.hint(conditions)) and phase(conditions) in (Phase.RUNNING, Phase.SUCCEEDED) else text


def _line(conditions: Sequence[ConditionStatus]) -> str:
    return shortened(one_line(message(conditions)), MAX_STRING)


def _is_suspending(conditions: Sequence[ConditionStatus]) -> bool:
    """Whether a suspended job still holds pods: nothing else can begin on them."""
    return of.reason(conditions, Condition.SUSPENDED) == Reason.SUSPENDING


def _progress(case: Case, memory: LowPrecisionRLJobStatus) -> Progress | None:
    """Progress of the attempt the status names now: a decision may have just moved on from the snapshot's."""
    found = case.progress()
    return found if found is not None and found.attempt == memory.attempt else None


def _stability(progress: Progress | None) -> tuple[Finding, ...]:
    if progress is None:
        return ()
    report = progress.stability
    value, reason = _STABILITY[report.state]
    parts = [f"{report.metric}={report.value:.3g}" if report.value is not None else f"{report.metric} not measured yet"]
    parts += [f"baseline {report.baseline:.3g}"] if report.baseline is not None else []
    parts += [f"limit {report.limit:.3g}"] if report.limit is not None else []
    parts += [f"since step {report.since_step}"] if report.since_step is not None else []
    return (Finding(Condition.TRAINING_STABLE, value, reason, ", ".join(parts)),)


def _effective(case: Case, progress: Progress | None) -> str | None:
    if progress is None or progress.effective_rollout is None:
        return None
    return f"{case.job.spec.precision.training}/{progress.effective_rollout}"


def _plan(case: Case, old: PlanStatus) -> PlanStatus:
    plan = case.wanted.plan
    if plan is None:
        return old
    ranks = plan.ranks
    return PlanStatus(nodes=ranks.nodes, trainer_ranks=ranks.trainer_ranks, engines=ranks.engines, summary=plan.summary)


def _conversion(case: Case, decision: Decision, memory: LowPrecisionRLJobStatus, conditions: Sequence[ConditionStatus]) -> ConversionStatus:
    wanted = case.wanted.conversions()
    answers = _answers(case) or memory.conversion.answers
    total = sum(c.shards for c in wanted)
    if decision.shards is not None:
        done = decision.shards.done
    elif of.is_true(conditions, Condition.CONVERTED):
        done = total
    else:
        return memory.conversion.model_copy(update={"answers": answers})
    keys = tuple(c.config.content_key for c in wanted)
    return ConversionStatus(shards=total, shards_done=done, content_keys=keys, progress=f"{done}/{total}" if total else "", answers=answers)


def _answers(case: Case) -> AnswersStatus | None:
    """What the finalise Job of the served conversion says of the answers; None while it says nothing."""
    wish = case.job.spec.conversion.verify
    served = next((c for c in case.wanted.conversions() if c.config.verify is not None), None)
    final = case.seen.jobs.get(naming.finalise_job(served.name)) if served is not None else None
    found = answers_of(final, wish) if final is not None and wish is not None else None
    if found is None or found.distance is None:
        return None
    distance = found.distance
    return AnswersStatus(
        settings=found.settings,
        positions=distance.positions,
        kl_mean=f"{distance.kl_mean:.3g}",
        kl_p99=f"{distance.kl_p99:.3g}",
        top1_agreement=f"{distance.top1_agreement:.4f}",
        nll_change=f"{distance.nll_change:.4f}",
        advice=tuple(advice.text for advice in found.advice),
        file=found.file,
    )


def _nodes(case: Case, decision: Decision, memory: LowPrecisionRLJobStatus) -> NodesStatus:
    if decision.nodes is not None:
        return NodesStatus(ready=decision.nodes.done, wanted=decision.nodes.wanted, summary=str(decision.nodes))
    wanted = case.wanted.plan.ranks.nodes if case.wanted.plan is not None else memory.nodes.wanted
    return NodesStatus(ready=0, wanted=wanted, summary=f"0/{wanted}" if wanted else "")


def _training(case: Case, old: TrainingStatus, progress: Progress | None) -> TrainingStatus:
    steps = case.job.spec.algorithm.steps
    if case.status.completion_time is not None:
        return old  # caches may still hold what was said before the end
    if progress is None:
        return old.model_copy(update={"steps": steps, "summary": f"{old.step}/{steps}"})
    evaluation = progress.evaluation or old.evaluation
    # A driver that has not resumed yet does not know how far earlier attempts came.
    step = max(progress.step, old.step) if progress.phase in ("starting", "loading") else progress.step
    return TrainingStatus(
        step=step,
        steps=steps,
        summary=f"{step}/{steps}",
        reward=_number(progress.reward) or old.reward,
        mismatch=_number(progress.mismatch_k3, ".2e") or old.mismatch,
        tokens_per_second=_number(progress.tokens_per_second, ".0f") or old.tokens_per_second,
        episodes=episodes.told(progress.episodes) or old.episodes,
        seconds_left=None if progress.seconds_left is None else max(0, int(progress.seconds_left)),
        staleness=staleness(progress) or old.staleness,
        trainer_idle=_number(progress.trainer_idle, ".0%") or old.trainer_idle,
        engines_idle=_number(progress.engines_idle, ".0%") or old.engines_idle,
        lost_episodes=lost(progress) or old.lost_episodes,
        weight_version=progress.weight_version,
        evaluation=evaluation,
        evaluation_reward=None if evaluation is None else _number(evaluation.reward),
        checkpoint=progress.checkpoint or old.checkpoint,
        export=progress.export or old.export,
    )


def _resumed(memory: LowPrecisionRLJobStatus) -> TrainingStatus:
    """What is known of the run before any driver reports: an earlier job of this name may have left a checkpoint."""
    known = memory.training
    earlier = memory.inspection.earlier if memory.inspection is not None else None
    if earlier is None or earlier.checkpoint is None or known.checkpoint is not None or memory.completion_time is not None:
        return known
    return known.model_copy(update={"step": max(known.step, earlier.checkpoint.step), "checkpoint": earlier.checkpoint})


def staleness(progress: Progress) -> str | None:
    """Say how old the samples of the last step are; None for a run that takes turns."""
    return (
        f"{progress.staleness:.2f}, at most {progress.staleness_max}" if progress.staleness is not None and progress.staleness_max else None
    )


def lost(progress: Progress) -> str | None:
    """Say how many episodes came to nothing; None for none."""
    found, dropped = progress.episodes, progress.dropped_episodes
    parts = [f"{found.failed} failed", f"{found.aborted} aborted"] if found is not None and found.failed + found.aborted else []
    return ", ".join([*parts, *([f"{dropped} given up"] if dropped else [])]) or None


def _number(value: float | None, form: str = ".3f") -> str | None:
    return None if value is None else format(value, form)
