"""PURE: what somebody took out of status, put back from what the objects of the running attempt say they were made from."""

from lprl_api.wire.status import LowPrecisionRLJobStatus
from lprl_operator.decide.observed import ClusterState, Observed
from lprl_operator.resources.made_from import MadeFrom, read


def recalled(status: LowPrecisionRLJobStatus, seen: Observed, uid: str, created: str | None) -> LowPrecisionRLJobStatus:
    """Return the status with what is known for sure: attempt, budget and start of a job that runs.

    The start guards the parts of the spec that may not change; without it the API server would let them be edited.
    """
    if status.completion_time is not None:
        return status
    made = _newest(seen, uid)
    cluster, memory = made if made is not None else (None, None)
    update: dict[str, object] = {}
    if cluster is not None and cluster.attempt > status.attempt:
        update |= {"attempt": cluster.attempt, "attempt_unused": False, "cluster": cluster.name, "restart_not_before": None}
    runs = cluster is not None and cluster.attempt >= status.attempt and (status.restart_not_before is None or bool(update))
    if memory is not None and runs:
        update |= {"restarts_used": memory.restarts_used, "refill_step": memory.refill_step}
    begun = status.attempt or cluster is not None or status.inspection is not None or status.active_since is not None
    if status.start_time is None and begun:
        said = memory.start_time if memory is not None else None
        times = (status.active_since, status.attempt_started_at, *(c.last_transition_time for c in status.conditions))
        update["start_time"] = said or min((t for t in times if t), default=created)
    return status.model_copy(update=update) if update else status


def _newest(seen: Observed, uid: str) -> tuple[ClusterState, MadeFrom | None] | None:
    mine = [c for c in seen.clusters if uid in c.owner_uids and not c.deleting]
    newest = max(mine, key=lambda c: c.attempt, default=None)
    return (newest, read(newest.made_from)) if newest is not None else None
