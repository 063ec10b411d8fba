"""Log-probabilities of engines that are no numbers, as a broken quantised engine returns them: counted and named."""

import logging
from collections.abc import Sequence

from lprl_workload.data import Metrics
from lprl_workload.episode import EpisodeRef

log = logging.getLogger(__name__)


def nonfinite(step: int, episodes: Sequence[EpisodeRef]) -> Metrics:
    """Return `rollout_nonfinite`, how many drawn tokens' log-probabilities are NaN or infinite, and name the first; empty for none."""
    broken = [episode for episode in episodes if episode.broken]
    if not broken:
        return {}
    count, total, first = sum(e.broken for e in broken), sum(e.drawn_tokens for e in episodes), broken[0]
    where = f"prompt {first.prompt}, response {first.sample}: {first.broken} of {first.drawn_tokens}"
    said = f"{count} of {total} log-probabilities of the engines are no numbers: over any mismatch limit"
    log.warning("step %d: %s; first: %s (engine %d, weight version %d)", step, said, where, first.engine, first.newest)
    return {"rollout_nonfinite": float(count)}
