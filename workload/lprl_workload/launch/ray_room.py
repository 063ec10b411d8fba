"""Waiting until the workers of a run have joined its Ray cluster."""

import logging
import time
from collections.abc import Callable

import ray

from lprl_api.names import ROLLOUT_SLOT, TRAINER_SLOT
from lprl_api.wire.runconfig import Ranks

log = logging.getLogger(__name__)
POLL_S = 1.0
LOG_EVERY_S = 60.0


def missing(ranks: Ranks, offered: dict[str, float]) -> str:
    """Return which slots the cluster does not offer yet, in words; empty when it offers all."""
    wanted = {TRAINER_SLOT: ranks.trainer_ranks, ROLLOUT_SLOT: ranks.engines * ranks.slots_per_engine}
    return ", ".join(f"{int(offered.get(slot, 0))}/{count} {slot}" for slot, count in wanted.items() if offered.get(slot, 0) < count)


def lacking(ranks: Ranks) -> str:
    """Return what is missing now. Blocks when Ray does not answer."""
    return missing(ranks, ray.cluster_resources())


def wait_for_room(ranks: Ranks, waits: Callable[[str], None]) -> None:
    """Wait until every slot is there, however long it takes.

    Workers may queue for GPUs for hours while the head runs already; how long that may last is the operator's business
    (spec.failurePolicy.provisionTimeoutSeconds). `waits` is told what is missing every second, and nothing ("") at the end; it raises
    to give up (StopAskedError when the run is suspended or its pod evicted meanwhile).
    """
    logged = float("-inf")
    while lacking := missing(ranks, ray.cluster_resources()):
        waits(lacking)
        if time.monotonic() - logged >= LOG_EVERY_S:
            log.info("waiting for workers: %s", lacking)
            logged = time.monotonic()
        time.sleep(POLL_S)
    waits("")
