"""Episodes that failed, or were aborted, by no doing of the policy: counted and told, and kept out of the loss and of every mean.

A group of which fewer than two are left teaches a group-relative objective nothing (its advantages are 0) and would only dilute the
mean of the others: it is dropped, where dynamic sampling is on in favour of other prompts.
"""

import logging
from collections import Counter
from collections.abc import Sequence

from lprl_api.derived.effective import least_of_group
from lprl_api.spec.algorithm import Algorithm
from lprl_api.wire.progress import FAILURE_CHARACTERS, FAILURES, EpisodeReport
from lprl_workload.data import Metrics
from lprl_workload.episode import WAITED, EpisodeRef
from lprl_workload.metrics.reward_signal import fitted
from lprl_workload.process.errors import EpisodesFailedError

log = logging.getLogger(__name__)


def finished_groups(refs: Sequence[EpisodeRef], count: int) -> list[list[EpisodeRef]]:
    """Return the episodes of each of `count` groups that were neither lost nor aborted."""
    groups: list[list[EpisodeRef]] = [[] for _ in range(count)]
    for ref in refs:
        if not ref.lost:
            groups[ref.group].append(ref)
    return groups


def whole_enough(group: Sequence[EpisodeRef], algorithm: Algorithm) -> bool:
    """Return whether enough of a group is left to learn from."""
    return len(group) >= least_of_group(algorithm)


def report_of(refs: Sequence[EpisodeRef]) -> EpisodeReport:
    """Return what became of episodes, with the first failures that read differently."""
    calls: Counter[str] = Counter()
    for ref in refs:
        calls.update(dict(ref.calls))
    waited = [dict(ref.calls)[WAITED] / 1000 for ref in refs if WAITED in dict(ref.calls)]
    lost = [ref for ref in refs if ref.finish == "failed"]
    kinds = list({ref.failure: ref for ref in reversed(lost)}.values())[::-1]
    return EpisodeReport(
        drawn=len(refs),
        failed=len(lost),
        aborted=sum(ref.finish == "abort" for ref in refs),
        turns=sum(ref.turns for ref in refs) / len(refs) if refs else 0.0,
        calls={how: calls[how] for how in ("ok", "error", "failed") if calls[how]},
        sandbox_wait_seconds=sum(waited) / len(waited) if waited else None,
        failures=tuple(
            fitted(f"prompt {r.prompt}, sample {r.sample}: {r.failure}", FAILURE_CHARACTERS, head=0.5) for r in kinds[:FAILURES]
        ),
    )


def check(what: str, report: EpisodeReport, limit: float) -> None:
    """Tell of lost episodes; raises EpisodesFailedError when more than a share `limit` of them is lost."""
    lost = report.failed + report.aborted
    if not lost:
        return
    first = "; ".join(report.failures)
    counted = f"{what}: {report.failed} of {report.drawn} episodes failed" + (f", {report.aborted} aborted" if report.aborted else "")
    if lost > limit * report.drawn:
        share = f"more than episode.maxFailedFraction ({limit:g})"
        raise EpisodesFailedError(f"{counted}, {share}; first: {first}")
    log.warning("%s and take no part in the step; first: %s", counted, first)


def none_left(what: str, report: EpisodeReport) -> EpisodesFailedError:
    """Return the error of a step of which no group is left to learn from."""
    first = "; ".join(report.failures)
    return EpisodesFailedError(f"{what}: {report.failed} of {report.drawn} episodes failed, no group is left to learn from; first: {first}")


def metrics_of(report: EpisodeReport) -> Metrics:
    """Return the columns of a step's row that runs of several turns have besides."""
    calls = {f"tool_calls_{how}": float(report.calls.get(how, 0)) for how in ("ok", "error", "failed")}
    if report.sandbox_wait_seconds is not None:
        calls["sandbox_wait_seconds"] = report.sandbox_wait_seconds
    return {"failed_episodes": float(report.failed), "aborted_episodes": float(report.aborted), "turns_per_episode": report.turns, **calls}
