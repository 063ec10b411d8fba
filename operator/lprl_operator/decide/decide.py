"""PURE: the state machine. Level-triggered: the answer depends on (job, status, observed, plan, now) and on nothing else.

A job passes the stages from top to bottom; the first stage that is not passed decides. Every stage can be entered again at
any time (an operator that crashed between any two writes comes back here), so each asks what is, never what happened.
"""

from collections.abc import Callable

from lprl_api.names import Condition, Reason
from lprl_api.wire.status import LowPrecisionRLJobStatus
from lprl_operator.decide import attempts, converting, corrections, endings, inspecting, pooling, rehoming, running, suspending
from lprl_operator.decide.decision import Case, Decision, Finding, judged_valid
from lprl_operator.decide.failures import Move, Verdict

Stage = Callable[[Case], Decision | None]
LAST_CHECKPOINT_S = 300.0
"""What a driver is given for a checkpoint once the active deadline is over."""
REMEMBERED = (
    "attempt",
    "attempt_unused",
    "cluster",
    "completion_time",
    "restart_not_before",
    "failures",
    "active_since",
    "inspection",
    "pod_trouble",
)
"""Fields of status that decisions read back and that cannot be found out again. Workers are not watched: only a live read says that one
has its image.
"""


def decide(case: Case) -> Decision:
    """Return what to remember, say and do now."""
    if endings.finished(case.status):
        return endings.after_the_end(case)
    if case.problem is not None and not _runs_as_judged(case):
        return _invalid(case)
    if not case.job.spec.suspend:
        case = suspending.resumed(case)
    decision = next(d for stage in STAGES if (d := stage(case)) is not None)
    return _in_time(case, decision).with_findings(*_passed(case), *_defaults())


def consequential(before: LowPrecisionRLJobStatus, decision: Decision) -> bool:
    """Whether a decision does more than tell, or tells that nothing runs any more: such a one is made from a live read only."""
    return bool(decision.actions) or remembers(before, decision)


def remembers(before: LowPrecisionRLJobStatus, decision: Decision) -> bool:
    """Whether a decision notes something that later ones rest on: it must be in status before anything is done."""
    changed = any(getattr(before, name) != getattr(decision.memory, name) for name in REMEMBERED)
    released = any(f.type == Condition.SUSPENDED and f.status == "True" for f in decision.findings)
    known = any(c.type == Condition.SUSPENDED and c.status == "True" for c in before.conditions)
    return changed or (released and not known)


def _deadline(case: Case) -> Decision | None:
    left = _seconds_left(case)
    if left is None or left > 0:
        return None
    ended = running.driver_end(case.seen.last_head(case.status.attempt)) if not attempts.over(case) else None
    if ended is not None and ended.move is Move.SUCCEED:
        return endings.succeed(case, ended)
    message = f"active for more than {case.job.spec.active_deadline_seconds} s (spec.activeDeadlineSeconds)"
    if ended is None and not attempts.over(case) and -left < LAST_CHECKPOINT_S and suspending.stopping(case):
        return suspending.last_checkpoint(case, f"{message}: the driver makes a last checkpoint")
    kept = case.status.training.checkpoint
    known = f"; its checkpoint of step {kept.step} is kept" if kept is not None else ""
    return endings.fail(case, Verdict(Move.FAIL, Reason.DEADLINE_EXCEEDED, message + known))


def _attempt(case: Case) -> Decision | None:
    return attempts.next_attempt(case) if attempts.over(case) else running.current_attempt(case)


STAGES: tuple[Stage, ...] = (
    _deadline,
    suspending.suspend_stage,
    corrections.correct_stage,
    inspecting.inspect_stage,
    pooling.pool_stage,
    converting.convert_stage,
    _attempt,
)


def _seconds_left(case: Case) -> float | None:
    """Active seconds until the deadline; None without one or while suspended."""
    limit = case.job.spec.active_deadline_seconds
    if limit is None or case.status.active_since is None:
        return None
    return limit - case.status.active_seconds - case.seconds_since(case.status.active_since)


def _in_time(case: Case, decision: Decision) -> Decision:
    """Look again when the deadline comes at the latest."""
    left = _seconds_left(case)
    if left is None or left <= 0 or endings.finished(decision.memory):
        return decision
    soon = left if decision.requeue_seconds is None else min(left, decision.requeue_seconds)
    return Decision(decision.memory, decision.findings, decision.actions, max(0.0, soon), decision.shards, decision.nodes)


def _passed(case: Case) -> tuple[Finding, ...]:
    """Conditions of the stages that lie behind."""
    found = [suspending.not_suspended(case)]
    plan = case.wanted.plan
    if plan is not None:
        words = (plan.summary, corrections.pending(case), corrections.queueing(case))
        found.append(Finding(Condition.VALIDATED, "True", Reason.VALID, "; ".join(filter(None, words))))
    elif case.problem is None:
        found.append(Finding(Condition.VALIDATED, "Unknown", Reason.INSPECTING, "the rules that need the model's shape wait for it"))
    inspection = case.status.inspection
    if inspection is not None:
        found.append(inspecting.inspected(case, inspection))
        told = any(c.type == Condition.CONVERTED and c.status == "True" for c in case.status.conditions)
        # Later it stays as it was found then, unless somebody took it away.
        if not told if case.status.attempt else converting.convert_stage(case) is None:
            found.append(converting.converted(case))
    return tuple(found)


def _defaults() -> tuple[Finding, ...]:
    return (
        Finding(Condition.COMPLETE, "False", Reason.NOT_FINISHED),
        Finding(Condition.FAILED, "False", Reason.NOT_FINISHED),
        Finding(Condition.CLUSTER_READY, "False", Reason.NOT_STARTED),
    )


def _runs_as_judged(case: Case) -> bool:
    """Whether this very spec was found valid and its attempt is there: rules and estimates of a newer operator end nothing that runs.

    What a queue put back to the attempt before would have to be rendered, which takes a plan: such an attempt ends.
    """
    cluster = case.seen.cluster(case.status.attempt)
    there = cluster is not None and not rehoming.waits_to_be_written(case, cluster)
    return there and judged_valid(case.status, case.job.metadata.generation)


def _invalid(case: Case) -> Decision:
    """A job that cannot be run as written: failed until its spec is corrected, if it did not start yet; else for good."""
    problem = case.problem
    assert problem is not None, "checked by decide"
    message = f"{problem.message}; {problem.remedy}" if problem.remedy else problem.message
    validated = Finding(Condition.VALIDATED, "False", case.problem_reason, message)
    if case.status.attempt > 0:
        return endings.fail(case, Verdict(Move.FAIL, case.problem_reason, message), validated)
    findings = (
        validated,
        Finding(Condition.FAILED, "True", case.problem_reason, message),
        Finding(Condition.COMPLETE, "False", Reason.NOT_FINISHED),
        Finding(Condition.PROGRESSING, "False", Reason.NOT_STARTED),
    )
    return Decision(endings.pause(case, case.status), findings, endings.cleanup(case), None)
