"""Watching the processes of calls that are under way: each is asked, beside whatever it is at, what it got done.

No call is given a time by which it must return: how long a generation or a checkpoint takes is nobody's guess. What is bounded is
how long nothing may move. So a call of hours that moves is waited for, and one that hangs ends in its recovery.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from lprl_workload.launch.stillness import Limits, Still, Stillness, after_failure
from lprl_workload.process.movement import Movement, here

POLL_S = 2.0


class Vigil:
    """One wait for calls, of which call i runs in the process of `handles[i]` (actors with a concurrency group `health`)."""

    def __init__(self, handles: Sequence[Any] | Mapping[int, Any], limits: Limits, movement: Movement = here) -> None:
        self._handles, self._movement, self._limits = handles, movement, limits
        self._stillness = Stillness(limits, time.monotonic())
        self.poll_s = min(POLL_S, limits.still_s / 5, limits.silent_s / 5)
        self._asked: dict[int, Any] = {}

    def expect(self, number: int) -> None:
        """A call begins in the process of `number`, which may have had none for long."""
        self._stillness.heard(number, True, time.monotonic())

    def look(self, pending: Iterable[int]) -> Still | None:
        """Ask the processes of the calls in `pending`, take what they answered so far, return one that is to be given up. Never waits."""
        numbers = list(pending)
        if self._limits.starting:
            self._movement.tick()
        for number in numbers:
            if number not in self._asked:
                self._asked[number] = self._handles[number].moved.options(concurrency_group="health").remote()
        self._hear()
        return self._stillness.given_up(numbers, time.monotonic())

    def after_failure(self) -> "Vigil | None":
        """Return the vigil over the calls still pending when one failed by chance: what hangs explains it. None of ranks."""
        limits = after_failure(self._limits)
        return None if limits is None else Vigil(self._handles, limits, self._movement)

    def end(self, still: Still) -> None:
        """Kill a process that is given up: it may answer for ever, and whoever replaces lost ones must find it gone."""
        ray.kill(self._handles[still.number])

    def _hear(self) -> None:
        refs = {ref: number for number, ref in self._asked.items()}
        done, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0) if refs else ([], [])
        for ref in done:
            number = refs[ref]
            del self._asked[number]
            try:
                moved = ray.get(ref)
            except RayError:
                continue  # it died, which the call itself will tell
            self._stillness.heard(number, self._movement.follow(self._handles[number], moved), time.monotonic())
