"""Stage 3, the current attempt: is it starting, getting on, or lost?"""

from math import inf

from lprl_api.names import Condition, Reason
from lprl_api.text import shortened
from lprl_api.wire.progress import Progress
from lprl_operator.decide import pulling, rehoming, requeueing
from lprl_operator.decide.actions import Action, Apply, Create
from lprl_operator.decide.attempts import GOING_S, end_attempt, provision, waiting
from lprl_operator.decide.decision import LATER_S, SOON_S, Case, Count, Decision, Finding
from lprl_operator.decide.failures import MAX_MESSAGE, Move, Verdict, departed_verdict, driver_verdict, head_verdict
from lprl_operator.decide.inspecting import refusal_note
from lprl_operator.decide.movement import clocked, doing, has_moved, stands_still, still_text
from lprl_operator.decide.observed import ClusterState, PodState
from lprl_operator.decide.rehoming import lingering
from lprl_operator.resources import progress as progress_map

CALM_S = 300.0
"""Between two looks at a job that runs and says nothing: a thousand of them must cost next to nothing."""
NO_REPORT = "the driver's newest report is gone or cannot be read"


def current_attempt(case: Case) -> Decision:
    """Judge the attempt that status names."""
    attempt = case.status.attempt
    cluster, head = case.seen.cluster(attempt), case.seen.head(attempt)
    if cluster is not None and case.uid not in cluster.owner_uids:
        message = f"waits until {cluster.name} is gone: it is not this job's (garbage collection takes one of an earlier job of this name)"
        return waiting(case, Reason.WAITING_FOR_PODS_GONE, message)
    ended = driver_end(case.seen.last_head(attempt))
    if ended is not None:
        return end_attempt(case, _sent_away(ended, cluster))
    if cluster is None:
        return _without_cluster(case)
    over = rehoming.out_of_queue_time(cluster)
    if over is not None:
        return end_attempt(case, over)
    if case.status.attempt_started_at is None:
        coming = None if rehoming.is_born_for(case, cluster) or cluster.held else _coming(case, cluster)
        if coming is not None:
            return coming
        case = case.remember(attempt_started_at=case.stamp())
    case = pulling.noted(case, cluster)
    lost = _lost(case, cluster, head)
    if lost is not None:
        return end_attempt(case, lost)
    if cluster.suspended:
        return _queued(case, cluster)
    return _alive(case, cluster, head)


def _coming(case: Case, cluster: ClusterState) -> Decision | None:
    """Wait until a cluster of before has let go of the attempt before; None when whatever pods come now are of this one."""
    attempt = case.status.attempt
    again = rehoming.arrival(case, cluster)
    if again is not None:
        told = "; ".join(filter(None, (f"attempt {attempt} is written into {cluster.name} again", refusal_note(case))))
        writing = waiting(case, Reason.WAITING_FOR_PODS_GONE, told, (again,))
        return Decision(writing.memory, writing.findings, writing.actions, GOING_S)
    if not cluster.suspended:
        return None
    dead = [p for p in rehoming.living(case, cluster) if p.attempt != attempt and rehoming.given_up(case, p)]
    if dead and not cluster.emptied:
        message = f"{cluster.name} waits for a pod on unreachable node {dead[0].node}: a new one is made"
        return end_attempt(case, Verdict(Move.RESTART_FREE, Reason.NODE_UNREACHABLE, message))
    left = lingering(case, attempt)
    if left and not cluster.emptied:  # a list of pods may be older than KubeRay's word
        going = waiting(case, Reason.WAITING_FOR_PODS_GONE, f"attempt {attempt} waits until {left[0].name} is gone")
        return Decision(going.memory, going.findings, (), GOING_S)
    if not cluster.told_to_suspend:
        return waiting(case, Reason.PROVISIONING, f"attempt {attempt}: its pods are made in {cluster.name}")
    return _queued(case, cluster)


def driver_end(head: PodState | None) -> Verdict | None:
    """What the driver's exit says, None while it has not ended."""
    if head is None or head.driver is None or head.driver.state != "terminated":
        return None
    verdict = driver_verdict(head, head.driver)
    return _departed(head, verdict) if head.deleting or head.disruption else verdict


def _departed(head: PodState, verdict: Verdict) -> Verdict:
    """Judge the driver of a head that had to go: what it tripped over on the way out is no reason of its own."""
    if verdict.reason not in (Reason.DRIVER_CRASHED, Reason.WORKERS_LOST, Reason.HEAD_LOST, Reason.SUSPENDED):
        return verdict
    how = f"was evicted ({head.disruption})" if head.disruption else "was deleted"
    said = "its driver made a checkpoint first" if verdict.reason == Reason.SUSPENDED else verdict.message
    message = shortened(f"the head pod {head.name} {how}: {said}", MAX_MESSAGE)
    move, reason = (Move.RESTART_FREE, Reason.EVICTED) if head.disruption else (Move.RESTART, Reason.HEAD_LOST)
    return Verdict(move, reason, message, verdict.termination)


def _sent_away(verdict: Verdict, cluster: ClusterState | None) -> Verdict:
    """Judge the driver of a head that had to go because its cluster is suspended: that is nobody's failure, whatever was seen first."""
    if verdict.reason != Reason.HEAD_LOST or cluster is None or not cluster.suspended:
        return verdict
    return Verdict(Move.RESTART_FREE, Reason.EVICTED, _suspended(cluster), verdict.termination)


def _suspended(cluster: ClusterState) -> str:
    return _with_words(f"{cluster.name} was suspended by its queue", cluster)


def control_update(case: Case, suspend: bool) -> tuple[Action, ...]:
    """Tell the driver what changed; nothing when the ConfigMap says so already. One that somebody deleted is made anew."""
    attempt, wanted = case.status.attempt, progress_map.control(case.job, suspend)
    if case.seen.progress_attempt != attempt:
        return (Create(progress_map.progress_config_map(case.job, attempt, suspend)),)
    if case.seen.control == progress_map.control_text(wanted):
        return ()
    return (Apply(progress_map.control_patch(case.job, attempt, wanted)),)


def _without_cluster(case: Case) -> Decision:
    attempt = case.status.attempt
    if (over := rehoming.taken_away(case)) is not None:
        return end_attempt(case, over)
    if case.status.attempt_started_at is not None:
        verdict = Verdict(Move.RESTART, Reason.CLUSTER_DELETED, f"the RayCluster of attempt {attempt} was deleted by somebody else")
        return end_attempt(case, verdict)
    if "RayCluster" in case.seen.missing_kinds:
        return waiting(case, Reason.KUBERAY_MISSING, "the API server knows no RayCluster: install KubeRay")
    return provision(case)


def _lost(case: Case, cluster: ClusterState, head: PodState | None) -> Verdict | None:
    """Why the attempt cannot go on, None while it can."""
    started = case.progress() is not None
    if cluster.refused:
        return Verdict(Move.FAIL, Reason.CLUSTER_REFUSED, f"KubeRay refused {cluster.name}: {cluster.refused}")
    if cluster.deleting:
        return Verdict(Move.RESTART, Reason.CLUSTER_DELETED, f"{cluster.name} is being deleted by somebody else")
    if cluster.suspended:
        evicted = started or cluster.provisioned or cluster.held
        return Verdict(Move.RESTART_FREE, Reason.EVICTED, _suspended(cluster)) if evicted else None
    if head is None and cluster.template_attempt != cluster.attempt:
        return Verdict(Move.RESTART_FREE, Reason.EVICTED, f"{cluster.name} was suspended by its queue, which let go since")
    if head is None:
        gone = case.seen.departed_head(cluster.attempt)
        told = departed_verdict(gone) if gone is not None else None
        if told is not None:
            return told
        missing = f"the head pod of {cluster.name} is gone ({cluster.head_reason or 'no reason given'})"
        lost = Verdict(Move.RESTART, Reason.HEAD_LOST, missing) if started or cluster.provisioned else None
        return lost or _out_of_time(case, cluster)
    if case.status.head not in ("", head.uid):
        move, reason = (Move.RESTART_FREE, Reason.EVICTED) if cluster.queued else (Move.RESTART, Reason.HEAD_LOST)
        return Verdict(move, reason, f"the head of attempt {cluster.attempt} is gone, and {head.name} was made since")
    limit = case.job.spec.failure_policy.unreachable_node_seconds
    if head.unreachable_since is not None and (case.now - head.unreachable_since).total_seconds() >= limit:
        return Verdict(Move.RESTART, Reason.HEAD_LOST, f"node {head.node} of the head {head.name} is unreachable for more than {limit} s")
    return head_verdict(head) or _out_of_time(case, cluster)


def _out_of_time(case: Case, cluster: ClusterState) -> Verdict | None:
    policy, progress = case.job.spec.failure_policy, case.progress()
    imageless = pulling.gives_up(case, cluster) if not begun(case, progress) else None
    if imageless is not None:
        return imageless
    timeout, waited = policy.provision_timeout_seconds, case.seconds_since(case.status.attempt_started_at)
    if timeout is not None and not begun(case, progress) and not _ready(cluster) and waited >= timeout:
        return Verdict(Move.RESTART, Reason.PROVISION_TIMEOUT, f"not ready after {timeout} s: {_workers(case, cluster)}")
    still = progress is None or not has_moved(case, progress) or _waits_in_vain(case, cluster, progress)
    if still and case.status.progress_time is not None and stands_still(case):
        return Verdict(Move.RESTART, Reason.STALLED, still_text(case, progress))
    return None


def _alive(case: Case, cluster: ClusterState, head: PodState | None) -> Decision:
    progress, leaving = case.progress(), head is not None and head.deleting
    ready = _ready(cluster) and not leaving
    case = _clocked(case, cluster, progress)
    if progress is not None and head is not None:
        case = case.remember(head=head.uid)
    if begun(case, progress) and case.status.training_start_time is None:
        case = case.remember(training_start_time=case.stamp())
    findings: tuple[Finding, ...] = (_cluster_finding(case, cluster, ready),)
    if leaving and head is not None:
        findings = (Finding(Condition.CLUSTER_READY, "False", Reason.HEAD_LOST, f"the head pod {head.name} is being deleted"),)
    if begun(case, progress):
        text = doing(case, progress) if progress is not None else "; ".join(filter(None, (NO_REPORT, refusal_note(case))))
        findings += (Finding(Condition.PROGRESSING, "True", Reason.RUNNING, text),)
    else:
        up = head is not None and head.driver is not None
        text = doing(case, progress) if progress is not None else "the driver is starting" if up else "waits for the cluster"
        findings += (Finding(Condition.PROGRESSING, "False", Reason.STARTING, f"attempt {case.status.attempt}: {text}"),)
    nodes = Count(min(cluster.ready_workers, cluster.wanted_workers), cluster.wanted_workers)
    actions = control_update(case, suspend=False) + (rehoming.nudges(case, cluster) if head is None else ())
    calm = _calm_s(case) if ready and begun(case, progress) else LATER_S
    if progress is None and begun(case, progress):
        calm = min(calm, LATER_S)
    calm = min(calm, rehoming.NUDGE_S) if head is None else calm
    soon = SOON_S if actions and not case.seen.refusals else calm
    return Decision(case.status, findings, (*actions, *requeueing.relabelled(case, cluster)), soon, nodes=nodes)


def begun(case: Case, progress: Progress | None) -> bool:
    """Whether the driver does more than wait for its workers, as far as is known."""
    if progress is None:
        return case.status.progress_sequence > 0
    return progress.phase != "starting"


def _calm_s(case: Case) -> float:
    """Until when a running job needs no look, if nothing is told: until it would count as stalled."""
    left = case.job.spec.failure_policy.stall_seconds - case.seconds_since(case.status.progress_time)
    return min(CALM_S, max(SOON_S, left))


def _waits_in_vain(case: Case, cluster: ClusterState, progress: Progress) -> bool:
    """Whether the driver waits though all its workers are there, and were when we last looked: it would wait for ever."""
    nodes = case.status.nodes
    return not begun(case, progress) and _ready(cluster) and 0 < nodes.wanted <= nodes.ready and case.status.progress_time is not None


def _clocked(case: Case, cluster: ClusterState, progress: Progress | None) -> Case:
    """Note by our own clock when the run last moved (or when it could have begun to)."""
    if progress is not None:
        return case if _waits_in_vain(case, cluster, progress) else clocked(case, progress)
    if _ready(cluster) and case.status.progress_time is None:
        return case.remember(progress_time=case.stamp())
    return case


def _queued(case: Case, cluster: ClusterState) -> Decision:
    told = _with_words(f"{cluster.name} waits for admission by its queue", cluster)
    findings = (
        Finding(Condition.CLUSTER_READY, "False", Reason.QUEUED, told),
        Finding(Condition.PROGRESSING, "False", Reason.STARTING, f"attempt {case.status.attempt}: queued"),
    )
    # Waiting in a queue is no provisioning: the time limit counts from admission.
    memory = case.status.model_copy(update={"attempt_started_at": case.stamp()}) if _limit(case) else case.status
    if not rehoming.is_born_for(case, cluster):
        memory = memory.model_copy(update={"attempt_started_at": None})  # what comes is looked at anew: see rehoming
    # A queue takes a moment to say why, and nothing tells when it has.
    ended = case.status.failures[-1].time if case.status.failures else None
    since_s = min((case.now - cluster.created_at).total_seconds(), case.seconds_since(ended) if ended else inf)
    fresh = not cluster.queue and since_s < LATER_S
    actions = requeueing.relabelled(case, cluster)
    return Decision(memory, findings, actions, GOING_S if fresh else LATER_S, nodes=Count(0, cluster.wanted_workers))


def _with_words(text: str, cluster: ClusterState) -> str:
    return f"{text}: {cluster.queue}" if cluster.queue else text


def _limit(case: Case) -> bool:
    """Whether a provisioning limit is set and more than half a look's interval went by since its clock was put back."""
    is_set = case.job.spec.failure_policy.provision_timeout_seconds is not None
    return is_set and case.seconds_since(case.status.attempt_started_at) >= LATER_S


def _ready(cluster: ClusterState) -> bool:
    """KubeRay's own `ready` state is sticky, so it is not asked."""
    return cluster.head_ready and cluster.ready_workers >= cluster.wanted_workers and not cluster.replica_failure and not cluster.suspended


def _cluster_finding(case: Case, cluster: ClusterState, ready: bool) -> Finding:
    if ready:
        return Finding(Condition.CLUSTER_READY, "True", Reason.CLUSTER_READY, f"{cluster.name}: {_workers(case, cluster)}")
    pull = pulling.troubled(case, cluster)
    if pull is not None:
        return Finding(Condition.CLUSTER_READY, "False", Reason.IMAGE_PULL_FAILED, f"pod {pull.name}: {pull.image_pull}")
    return Finding(Condition.CLUSTER_READY, "False", Reason.WAITING_FOR_WORKERS, _workers(case, cluster))


def _workers(case: Case, cluster: ClusterState) -> str:
    """`31/32 workers; 1 unschedulable: 0/40 nodes are available: ...`."""
    parts = [f"{min(cluster.ready_workers, cluster.wanted_workers)}/{cluster.wanted_workers} workers"]
    pods = [p for p in case.seen.pods if p.attempt == cluster.attempt]
    stuck = [p for p in pods if p.scheduling]
    if stuck:
        parts.append(f"{len(stuck)} unschedulable: {stuck[0].scheduling}")
    if not cluster.head_ready:
        parts.append(f"head not ready{f' ({cluster.head_reason})' if cluster.head_reason else ''}")
    if cluster.replica_failure:
        parts.append(cluster.replica_failure)
    return "; ".join(parts)
