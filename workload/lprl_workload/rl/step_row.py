"""What a step's row says besides what trainer and collection measured: times, idle shares, staleness, the data it trained on."""

import logging
import math
import time
from collections.abc import Mapping

from lprl_workload.data import Metrics
from lprl_workload.episode import BatchRef

log = logging.getLogger(__name__)
LOG_EVERY_S = 1.0
"""Between two lines of steps in the driver's log: the record of every step is metrics.jsonl."""


def times(seconds: Mapping[str, float], whole: float, tokens: int, busy: float) -> Metrics:
    """Return the times of a step of `whole` seconds, by `seconds` of each phase; `busy`: seconds in which a request was open."""
    return {
        "tokens_per_second": tokens / whole,
        "sync_seconds": seconds.get("syncing", 0.0),
        "generate_seconds": seconds.get("generating", 0.0),
        "train_seconds": seconds.get("training", 0.0) + seconds.get("held", 0.0),
        "step_seconds": whole,
        "trainer_idle_seconds": seconds.get("generating", 0.0),
        "engines_idle_seconds": max(0.0, whole - busy),
    }


def staleness(step: int, batch: BatchRef, made: Mapping[int, int]) -> Metrics:
    """Return mean and maximum, over the samples of step `step`, of how many steps older the oldest weights that drew a token of it are
    than the weights it trains; `made`: steps behind the weights of each version.
    """
    ages = [step - 1 - made[sample.oldest] for sample in batch.episodes if sample.oldest in made]
    return {"staleness_mean": sum(ages) / len(ages), "staleness_max": max(ages)} if ages else {}


def told(row: Metrics) -> dict[str, float | int | None]:
    """Return what Progress says of a step's row besides rewards and mismatch."""
    whole = row["step_seconds"]
    idle = {f"{side}_idle": min(1.0, row[f"{side}_idle_seconds"] / whole) if whole else None for side in ("trainer", "engines")}
    oldest = row.get("staleness_max")
    plain = {name: row[name] for name in ("tokens_per_second", "step_seconds", "sync_seconds")}
    return {**plain, **idle, "staleness": row.get("staleness_mean"), "staleness_max": None if oldest is None else int(oldest)}


def trained_on(first: int, last: int) -> Metrics:
    """Return the data positions [prompts_from, prompts_to) that a step used up: rows of a run tile them, in order."""
    return {"prompts_from": first, "prompts_to": last}


class StepLog:
    """The lines of steps in the driver's log."""

    def __init__(self) -> None:
        self._at = -math.inf

    def tell(self, step: int, steps: int, row: Metrics) -> None:
        """Log a finished step, unless one was logged just now and it is not the last."""
        if step >= steps or time.monotonic() - self._at >= LOG_EVERY_S:
            self._at = time.monotonic()
            shown = {"reward": "reward", "k3": "mismatch k3", "tokens_per_second": "tokens/s", "step_seconds": "seconds"}
            told = ", ".join(f"{text} {row[name]:.4g}" for name, text in shown.items() if name in row)
            log.info("step %d/%d: %s", step, steps, told)
