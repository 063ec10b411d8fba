"""Edits of a job while it lives: what waits is made anew with a correction, what runs takes it with the next attempt."""

from lprl_api.names import Reason
from lprl_operator.decide.attempts import end_attempt, over, unused_removals
from lprl_operator.decide.decision import Case, Decision
from lprl_operator.decide.failures import Move, Verdict
from lprl_operator.decide.rehoming import home, is_unused
from lprl_operator.decide.running import begun, driver_end
from lprl_operator.resources.made_from import is_outdated
from lprl_operator.resources.metadata import KUEUE_QUEUE, KUEUE_UNFIT


def correct_stage(case: Case) -> Decision | None:
    """End an attempt whose cluster waits and was made from what the job does not say any more; nothing is charged.

    What a queue held all the time had no pods: its number is used again, if its cluster can be deleted as it was seen (endings).
    """
    if over(case):
        return None
    attempt = case.status.attempt
    cluster = case.seen.cluster(attempt)
    if cluster is None or cluster.deleting or case.uid not in cluster.owner_uids or not is_outdated(cluster.made_from, case.job):
        return None
    if begun(case, case.progress()) or driver_end(case.seen.last_head(attempt)) is not None:
        return None
    message = f"{cluster.name} waited and is made anew from generation {case.job.metadata.generation} of the spec"
    case = case.remember(attempt_unused=home(case) is None and is_unused(case))
    ended = end_attempt(case, Verdict(Move.RESTART_FREE, Reason.CORRECTED, message))
    return Decision(ended.memory, ended.findings, (*unused_removals(case), *ended.actions), ended.requeue_seconds)


def queueing(case: Case) -> str:
    """What the job's labels and annotations ask of its queue and do not get, in words; empty where there is nothing of it."""
    meta = case.job.metadata
    told = [f"{key} has no effect: a job runs with all of its pods" for key in sorted(KUEUE_UNFIT & {*meta.labels, *meta.annotations})]
    cluster, wanted = case.seen.cluster(case.status.attempt), meta.labels.get(KUEUE_QUEUE)
    if not over(case) and cluster is not None and cluster.queued and wanted not in (None, cluster.queue_name):
        told.append(f"{cluster.name} stays in queue {cluster.queue_name}; suspend and resume to have the job in queue {wanted}")
    return "; ".join(told)


def pending(case: Case) -> str:
    """What a running attempt does not follow yet, in words; empty when it follows the spec."""
    cluster = case.seen.cluster(case.status.attempt)
    if over(case) or cluster is None or not is_outdated(cluster.made_from, case.job):
        return ""
    return f"generation {case.job.metadata.generation} of the spec takes effect with the next attempt; suspend and resume to apply it now"
