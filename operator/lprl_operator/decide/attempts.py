"""Stage 3: attempts. Attempt N is one driver and its workers; N+1 starts only when nothing of N can still run.

They run in one RayCluster as long as their pods are alike (rehoming.py), so that a queue keeps its quota; else in a new one.

`status.restart_not_before` set means: attempt N is over. Invariants: a number is in status before anything carries it; it
never falls; two attempts are never alive, where a pod on a node unreachable for longer than the limit counts as gone, since
the checkpoint store's fence excludes it.
"""

from datetime import timedelta

from lprl_api.names import Condition, Reason
from lprl_api.text import shortened
from lprl_operator.decide import endings, rehoming
from lprl_operator.decide.actions import Action, Create, DeleteOwned
from lprl_operator.decide.decision import LATER_S, SOON_S, Case, Decision, Finding, format_time
from lprl_operator.decide.failures import MAX_MESSAGE, Move, Verdict, newest_attempt, repeated
from lprl_operator.decide.inspecting import next_number, refusal, refusal_note
from lprl_operator.decide.observed import ClusterState
from lprl_operator.decide.rehoming import lingering
from lprl_operator.resources import naming
from lprl_operator.resources.made_from import made_from

MAX_BACKOFF_S = 3600
GOING_S = 4.0
"""Between two looks at pods that end; worker pods are not watched, so nothing else tells."""


def over(case: Case) -> bool:
    """Whether no attempt is current: none was made yet, or the last one ended."""
    return case.status.attempt == 0 or case.status.restart_not_before is not None


def end_attempt(case: Case, verdict: Verdict) -> Decision:
    """Act on the outcome of the current attempt."""
    if verdict.move is Move.SUCCEED:
        return endings.succeed(case, verdict)
    if verdict.move is Move.FAIL:
        return endings.fail(case, verdict)
    newest = newest_attempt(verdict) if verdict.reason == Reason.FENCED else None
    # A number this job never had is an earlier job's: nobody's failure, unless it happens again.
    earlier = newest is not None and newest > case.status.attempt and all(f.reason != Reason.FENCED for f in case.status.failures)
    charged = verdict.move is Move.RESTART and not earlier
    if not charged and verdict.reason != Reason.CORRECTED:
        case = endings.record(case, verdict)
    if charged:
        case = _refilled(endings.record(case, verdict))
        if verdict.repeats and repeated(case.status.failures):
            return _given_up_on(case, Verdict(Move.FAIL, Reason.REPEATED_FAILURE, _twice(case, verdict)))
        if case.status.restarts_used >= case.job.spec.failure_policy.max_restarts:
            used = case.status.restarts_used
            message = f"{used} restarts without {case.job.spec.failure_policy.refill_steps} steps of progress; last: {verdict.message}"
            return _given_up_on(case, Verdict(Move.FAIL, Reason.RESTARTS_EXHAUSTED, message))
        case = case.remember(restarts_used=case.status.restarts_used + 1)
    delay = _backoff_s(case) if charged else 0
    attempt = max(case.status.attempt, newest or 0)
    case = case.remember(attempt=attempt, restart_not_before=case.stamp(delay))
    home = rehoming.home(case)
    text = "; ".join(filter(None, (f"{verdict.reason}: {verdict.message}", rehoming.moves(case) if home is None else "")))
    findings = (
        Finding(Condition.PROGRESSING, "False", Reason.RESTARTING, text),
        Finding(Condition.CLUSTER_READY, "False", verdict.reason, verdict.message),
    )
    return Decision(case.status, findings, endings.delete_clusters(case) if home is None else rehoming.let_rest(case, home), SOON_S)


def next_attempt(case: Case) -> Decision:
    """Start attempt N+1 as soon as nothing of the others is left and the back-off is over."""
    if "RayCluster" in case.seen.missing_kinds:
        return waiting(case, Reason.KUBERAY_MISSING, "the API server knows no RayCluster: install KubeRay")
    case = case.remember(attempt_unused=case.status.attempt_unused and rehoming.is_unused(case))
    home = rehoming.home(case)
    left = _left_over(case) if home is None else _emptied(case, home)
    if left is not None:
        return left
    wait_s = -case.seconds_since(case.status.restart_not_before)
    if wait_s > 0 and (home is None or rehoming.may_wait(case, home)):
        until = case.status.restart_not_before
        decision = waiting(case, Reason.BACKING_OFF, f"attempt {next_number(case)} starts at {until}")
        return Decision(decision.memory, decision.findings, (), min(wait_s, LATER_S))
    before, gone = case.status.cluster or naming.cluster(case.job.metadata.name, case.status.attempt), case.status.attempt
    number = next_number(case)
    started: dict[str, object] = {"restart_not_before": None, "attempt_started_at": None, "attempt_unused": False}
    started |= {"progress_sequence": 0, "progress_moved": None, "progress_time": None, "head": "", "pod_trouble": None}
    started["prepared_claims"] = made_from(case.job).claims
    case = case.remember(attempt=number, **started)
    stays = home is not None and number == gone
    removals = attempt_removals(case, gone, before if home is None else None) if gone and not stays else ()
    return provision(case, removals)


def provision(case: Case, removals: tuple[Action, ...] = ()) -> Decision:
    """Make the objects of the current attempt, whose number is in status by the time this is applied."""
    attempt, home = case.status.attempt, rehoming.home(case)
    left = _left_over(case) if home is None else _emptied(case, home)
    if left is not None:
        return left
    name = home.name if home is not None else naming.cluster(case.job.metadata.name, attempt)
    refused = refusal(case, "RayCluster", Reason.CLUSTER_REFUSED, Condition.CLUSTER_READY, name)
    if refused is not None:
        return refused
    case = case.remember(cluster=name)
    *others, cluster = rehoming.documents(case, name)
    last = Create(cluster) if home is None else rehoming.begin(cluster, home)
    creates = (*(Create(d) for d in others), last)
    note = refusal_note(case)
    reason = Reason.CLUSTER_REFUSED if note else Reason.PROVISIONING
    doing = "creating the cluster" if home is None else f"its pods are made in {name}"
    findings = (
        Finding(Condition.CLUSTER_READY, "False", reason, note or f"attempt {attempt}: {doing}"),
        Finding(Condition.PROGRESSING, "False", Reason.STARTING, f"attempt {attempt}"),
    )
    return Decision(case.status, findings, (*removals, *creates), LATER_S if note else SOON_S)


def waiting(case: Case, reason: str, message: str, actions: tuple[Action, ...] = ()) -> Decision:
    """Between two attempts (or before the first): say what for."""
    again = case.status.attempt > 0
    progressing = Reason.BACKING_OFF if reason == Reason.BACKING_OFF else Reason.RESTARTING if again else Reason.NOT_STARTED
    findings = (
        Finding(Condition.CLUSTER_READY, "False", reason, message),
        Finding(Condition.PROGRESSING, "False", progressing, message if again else ""),
    )
    return Decision(case.status, findings, actions, SOON_S if actions else LATER_S)


def _left_over(case: Case) -> Decision | None:
    clusters, pods = case.seen.clusters, lingering(case)
    if not clusters and not pods:
        return None
    deletes = endings.delete_clusters(case)
    lost = [p for p in pods if p.unreachable_since is not None]
    if pods and len(lost) == len(pods) and not clusters:
        limit = timedelta(seconds=case.job.spec.failure_policy.unreachable_node_seconds)
        nodes = ", ".join(sorted({p.node for p in lost}))
        until = max(p.unreachable_since + limit for p in lost if p.unreachable_since is not None)
        message = f"pods on unreachable node {nodes}; they count as gone at {format_time(until)}"
        decision = waiting(case, Reason.NODE_UNREACHABLE, message, deletes)
        soon = min(LATER_S, max(SOON_S, (until - case.now).total_seconds()))
        return Decision(decision.memory, decision.findings, decision.actions, soon)
    names = [p.name for p in pods] or [c.name for c in clusters]
    shown = ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    decision = waiting(case, Reason.WAITING_FOR_PODS_GONE, f"attempt {_coming(case)} waits until {shown} is gone", deletes)
    return Decision(decision.memory, decision.findings, decision.actions, SOON_S if deletes else GOING_S)


def _emptied(case: Case, home: ClusterState) -> Decision | None:
    """Get the pods of the attempt before out of a cluster that no queue holds; None where they are, or a queue sees to it."""
    if rehoming.is_anothers(home):
        return None
    if not home.held or not home.told_to_suspend:  # another hand may have let go of it
        return _until_gone(case, home, (rehoming.hold(case, home),))
    return _until_gone(case, home, ()) if not home.emptied or lingering(case) else None


def _until_gone(case: Case, home: ClusterState, actions: tuple[Action, ...]) -> Decision:
    names = sorted(p.name for p in lingering(case))
    shown = f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}" if names else f"what {home.name} ran"
    told = "; ".join(filter(None, (f"attempt {_coming(case)} waits until {shown} is gone", refusal_note(case))))
    decision = waiting(case, Reason.WAITING_FOR_PODS_GONE, told, actions)
    return Decision(decision.memory, decision.findings, decision.actions, SOON_S if actions else GOING_S)


def _coming(case: Case) -> int:
    """Number of the attempt that is waited for."""
    return next_number(case) if over(case) else case.status.attempt


def attempt_removals(case: Case, attempt: int, cluster: str | None) -> tuple[Action, ...]:
    """What an ended attempt leaves: its rights (a straggler cannot report any more) and progress; account and budget of a gone cluster."""
    role, rbac = naming.driver_role(case.job.metadata.name, attempt), "rbac.authorization.k8s.io/v1"
    account = (DeleteOwned(case.ref("v1", "ServiceAccount", naming.driver_account(cluster)), case.uid),) if cluster is not None else ()
    return (
        *(endings.delete_budget(case, cluster) if cluster is not None else ()),
        DeleteOwned(case.ref(rbac, "RoleBinding", role), case.uid),
        DeleteOwned(case.ref(rbac, "Role", role), case.uid),
        *account,
        DeleteOwned(case.ref("v1", "ConfigMap", naming.progress(case.job.metadata.name, attempt)), case.uid),
    )


def unused_removals(case: Case) -> tuple[Action, ...]:
    """What lies ready for an attempt that never ran. It goes before the RayCluster does, whose account its rights may be given to."""
    if not case.status.attempt_unused:
        return ()
    going = (c for c in case.seen.clusters if not c.deleting and case.uid in c.owner_uids)
    return tuple(a for c in going for a in attempt_removals(case, case.status.attempt, c.name))


def _refilled(case: Case) -> Case:
    step = endings.reached_step(case)
    if step - case.status.refill_step < case.job.spec.failure_policy.refill_steps:
        return case
    return case.remember(restarts_used=0, refill_step=step)


def _backoff_s(case: Case) -> int:
    base = case.job.spec.failure_policy.backoff_seconds
    return min(MAX_BACKOFF_S, base * 2 ** min(case.status.restarts_used - 1, 20)) if base else 0


def _twice(case: Case, verdict: Verdict) -> str:
    first, second = case.status.failures[-2:]
    where = f"the same error in attempts {first.attempt} and {second.attempt} at step {second.step}: another one would meet it again"
    return shortened(f"{where}; {verdict.message}", MAX_MESSAGE)


def _given_up_on(case: Case, verdict: Verdict) -> Decision:
    failures = case.status.failures[:-1]  # fail() records the end; the attempt's own failure is in its message
    return endings.fail(case.remember(failures=failures), verdict)
