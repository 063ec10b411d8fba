"""When to look at a job again: news that cannot wait soon, routine news in turn, so that a thousand jobs cost what ten cost, later.

A look at a job that has news ends in a status write, which costs an API server ten to twenty milliseconds of processor time.
"""

import threading
import time
from collections.abc import Callable

from lprl_operator.decide.observed import Key

ROUTINE_PER_S = 10.0
"""Looks for routine news of jobs that run (a step more), over all jobs: each of 10 jobs once a second, each of 1,000 every 100 s."""
SHORTEST_S = 1.0
"""Between two looks at one job for routine news: a driver that reports without pause must not make a status write each time."""
STARTING_PER_S, MAX_STARTING_S = 2.0, 120.0
"""The same for jobs whose cluster starts (a pod more): they have little to tell, and what they wait for needs the processors."""
PAUSE_S_PER_CLUSTER, MAX_PAUSE_S = 0.01, 2.0
"""Before any look, by how many clusters are starting: what comes together is looked at together, and written once."""
CROWD = 20
"""More clusters starting than this: doing comes before telling."""


class Pace:
    """Thread-safe. `starting` and `unfinished` tell how many clusters start and how many jobs have not ended."""

    def __init__(self, starting: Callable[[], int], unfinished: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._starting, self._unfinished, self._clock = starting, unfinished, clock
        self._looked: dict[Key, float] = {}
        self._lock = threading.Lock()

    def looked(self, key: Key) -> None:
        """Note that a job is looked at now."""
        with self._lock:
            self._looked[key] = self._clock()

    def forget(self, key: Key) -> None:
        """Drop a job that is gone."""
        with self._lock:
            self._looked.pop(key, None)

    def after_news(self, key: Key, urgent: bool, starting: bool) -> float:
        """Seconds from something seen to looking at its job, whose cluster is `starting` or not."""
        pause_s = min(MAX_PAUSE_S, PAUSE_S_PER_CLUSTER * self._starting())
        if urgent:
            return pause_s
        with self._lock:
            looked = self._looked.get(key)
        return pause_s if looked is None else max(pause_s, looked + self._interval_s(starting) - self._clock())

    def by_time(self, wanted_s: float, starting: bool) -> float:
        """Seconds until a look that a decision asked for. While its cluster starts it is one of many that only wait."""
        return max(wanted_s, self._interval_s(starting)) if starting else wanted_s

    def is_crowded(self) -> bool:
        """Whether so much starts that doing comes before telling."""
        return self._starting() > CROWD

    def _interval_s(self, starting: bool) -> float:
        """Between two looks at one job for routine news."""
        if starting:
            return min(MAX_STARTING_S, self._starting() / STARTING_PER_S)
        return max(SHORTEST_S, self._unfinished() / ROUTINE_PER_S)
