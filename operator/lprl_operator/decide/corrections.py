"""Edits of a job while it lives: what waits is made anew with a correction, what runs takes it with the next attempt."""

from lprl_api.names import Reason
from lprl_operator.decide.attempts import end_attempt, over
from lprl_operator.decide.decision import Case, Decision
from lprl_operator.decide.failures import Move, Verdict
from lprl_operator.decide.running import begun, driver_end
from lprl_operator.resources.made_from import is_outdated


def correct_stage(case: Case) -> Decision | None:
    """End an attempt whose cluster waits and was made from what the job does not say any more; nothing is charged."""
    if over(case):
        return None
    attempt = case.status.attempt
    cluster = case.seen.cluster(attempt)
    if cluster is None or cluster.deleting or case.uid not in cluster.owner_uids or not is_outdated(cluster.made_from, case.job):
        return None
    if begun(case, case.progress()) or driver_end(case.seen.last_head(attempt)) is not None:
        return None
    message = f"{cluster.name} waited and is made anew from generation {case.job.metadata.generation} of the spec"
    return end_attempt(case, Verdict(Move.RESTART_FREE, Reason.CORRECTED, message))


def pending(case: Case) -> str:
    """What a running attempt does not follow yet, in words; empty when it follows the spec."""
    cluster = case.seen.cluster(case.status.attempt)
    if over(case) or cluster is None or not is_outdated(cluster.made_from, case.job):
        return ""
    return f"generation {case.job.metadata.generation} of the spec takes effect with the next attempt; suspend and resume to apply it now"
