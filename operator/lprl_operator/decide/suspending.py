"""Suspension: ask the driver to checkpoint and stop, then release the cluster; conversions go on for their other owners."""

from lprl_api.names import Condition, Reason
from lprl_operator.decide import endings
from lprl_operator.decide.attempts import GOING_S, over, unused_removals
from lprl_operator.decide.decision import LATER_S, SOON_S, Case, Decision, Finding
from lprl_operator.decide.failures import Move
from lprl_operator.decide.movement import clocked, has_moved, stands_still
from lprl_operator.decide.rehoming import is_unused, lingering
from lprl_operator.decide.running import control_update, driver_end


def suspend_stage(case: Case) -> Decision | None:
    """Bring a job that is to be suspended there; None for any other."""
    if not case.job.spec.suspend:
        return None
    if over(case):
        return _released(case)
    ended = driver_end(case.seen.last_head(case.status.attempt))
    if ended is not None and ended.move is Move.SUCCEED:
        return endings.succeed(case, ended)
    if ended is not None and ended.move is Move.FAIL:
        return endings.fail(case, ended)
    if ended is None and stopping(case):
        actions = control_update(case, suspend=True)
        findings = (Finding(Condition.SUSPENDED, "False", Reason.SUSPENDING, "the driver checkpoints and stops"),)
        return Decision(_clocked(case).status, findings, actions, SOON_S if actions and not case.seen.refusals else LATER_S)
    held = case.seen.cluster(case.status.attempt)
    unused = held is not None and not held.deleting and is_unused(case)
    return _released(case.remember(restart_not_before=case.stamp(), attempt_unused=unused))


def last_checkpoint(case: Case, why: str) -> Decision:
    """Ask the driver to checkpoint and stop because the job is about to end."""
    actions = control_update(case, suspend=True)
    findings = (Finding(Condition.PROGRESSING, "True", Reason.RUNNING, why),)
    return Decision(_clocked(case).status, findings, actions, SOON_S if actions and not case.seen.refusals else GOING_S)


def resumed(case: Case) -> Case:
    """Start or restart the clock of active time of a job that is not suspended."""
    if case.status.active_since is not None:
        return case
    start = case.status.start_time or case.stamp()
    return case.remember(active_since=case.stamp(), start_time=start)


def not_suspended(case: Case) -> Finding:
    """The condition of a job that is not (any more) suspended."""
    again = case.status.active_seconds > 0
    return Finding(Condition.SUSPENDED, "False", Reason.RESUMED if again else Reason.NOT_SUSPENDED)


def stopping(case: Case) -> bool:
    """Whether a driver runs that may still be on its way to a checkpoint."""
    attempt = case.status.attempt
    cluster, head = case.seen.cluster(attempt), case.seen.head(attempt)
    if cluster is None or cluster.deleting or cluster.suspended or head is None or not head.alive:
        return False
    if head.driver is None or head.driver.state != "running" or head.unreachable_since is not None:
        return False
    return has_moved(case, case.progress()) or not stands_still(case)


def _clocked(case: Case) -> Case:
    case = clocked(case, case.progress())
    return case if case.status.progress_time is not None else case.remember(progress_time=case.stamp())


def _released(case: Case) -> Decision:
    case = case.remember(attempt_unused=case.status.attempt_unused and is_unused(case))
    memory = endings.pause(case, case.status)
    actions = (*unused_removals(case), *endings.cleanup(case))
    pods = lingering(case)
    gone = not case.seen.clusters and not pods
    left = ", ".join(sorted([c.name for c in case.seen.clusters] or [p.name for p in pods])[:3])
    findings = (
        Finding(Condition.SUSPENDED, "True", Reason.SUSPENDED, _where(case))
        if gone
        else Finding(Condition.SUSPENDED, "False", Reason.SUSPENDING, f"waits until {left} is gone"),
        Finding(Condition.CLUSTER_READY, "False", Reason.CLUSTER_DELETED if memory.attempt else Reason.NOT_STARTED),
        Finding(Condition.PROGRESSING, "False", Reason.SUSPENDED if gone or _ran(case) else Reason.NOT_STARTED),
    )
    return Decision(memory, findings, actions, SOON_S if actions else None if gone else GOING_S)


def _ran(case: Case) -> bool:
    """Whether pods run that are on their way out, or ran when this suspension began."""
    known = next((c for c in case.status.conditions if c.type == Condition.PROGRESSING), None)
    told = known is not None and (known.status == "True" or known.reason == Reason.SUSPENDED)
    return told or any(p.phase == "Running" for p in lingering(case))


def _where(case: Case) -> str:
    """Where the run goes on when it is resumed."""
    training, kept = case.status.training, case.status.training.checkpoint
    if kept is not None:
        return f"released after step {training.step}; goes on from the checkpoint of step {kept.step} ({kept.path})"
    return "released before a first checkpoint; begins at step 0" if case.status.attempt else "nothing was started yet"
