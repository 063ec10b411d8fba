"""When a process that was asked to do something is given up: it does not answer, or it answers and nothing in it moves. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lprl_api.wire.runconfig import RunConfig

MISSED_HEALTH_CHECKS = 10
"""An engine that does not answer for as many health checks' time is killed and replaced."""
MESSAGE_S = 300.0
"""More than the slowest bucket takes, quantised and sent."""
VERDICT_S = 10.0
"""When one engine failed by chance, or a connection to all of them broke: what does not move for so long is to blame."""
START_S = 300.0
"""How long a process that loads may say nothing at least, however short a stall is."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long processes may stand still."""

    still_s: float
    """Seconds in which nothing moved, though the process answers."""
    silent_s: float
    """Seconds in which it does not even answer."""
    together: bool
    """Whether they wait for each other (trainer ranks): then one is lost only when none of those still at it moves."""
    starting: bool = False
    """Whether they import and build, which says nothing: being waited for counts as movement, since it is bounded here."""


def rank_limits(run: RunConfig) -> Limits:
    """Return the limits of trainer ranks: half of a stall, so that there is time to rebuild them before the attempt is given up."""
    return Limits(run.stall_seconds / 2, run.stall_seconds / 2, together=True)


def engine_limits(run: RunConfig, in_push: bool = False) -> Limits:
    """Return the limits of engines. In a push less than a rank's, which waits for them: the engine is to blame, not the trainer."""
    still_s = run.stall_seconds / (3 if in_push else 2)
    return Limits(still_s, min(still_s, MISSED_HEALTH_CHECKS * run.rollout.health_check_seconds), together=False)


def message_seconds(run: RunConfig) -> float:
    """Return how long one message of a broadcast, or whoever comes to its meeting, is waited for.

    Nothing can be asked while a process waits inside a broadcast. So this is short enough that all that follows, until the engine that
    is to blame is found, lies before a rank counts as lost.
    """
    return min(MESSAGE_S, run.stall_seconds / 6)


def after_failure(limits: Limits) -> Limits | None:
    """Return the limits of engines of which one failed, most likely since another hangs. None of ranks, which all fail then, and of
    processes that load, which say nothing.
    """
    if limits.together or limits.starting:
        return None
    return replace(limits, still_s=min(limits.still_s, VERDICT_S), silent_s=min(limits.silent_s, VERDICT_S))


def while_starting(limits: Limits) -> Limits:
    """Return the limits of processes that load: imports and the building of a model say nothing."""
    return replace(limits, still_s=max(limits.still_s, START_S), silent_s=max(limits.silent_s, START_S), starting=True)


@dataclass(frozen=True, slots=True)
class Still:
    """A process that is given up."""

    number: int
    words: str
    """`did not move for 900 s`."""


@dataclass(slots=True)
class Stillness:
    """Of processes 0, 1, ... since the start of one wait."""

    limits: Limits
    began: float
    _moved_at: dict[int, float] = field(default_factory=dict)
    _heard_at: dict[int, float] = field(default_factory=dict)

    def heard(self, number: int, moved: bool, now: float) -> None:
        """Note an answer, and whether anything moved since the one before."""
        self._heard_at[number] = now
        if moved:
            self._moved_at[number] = now

    def given_up(self, pending: Sequence[int], now: float) -> Still | None:
        """Return the process among those still at it that is to be given up, if any."""
        limits = self.limits
        silent = [n for n in pending if now - self._heard_at.get(n, self.began) >= limits.silent_s]
        if silent:
            return Still(silent[0], f"did not answer for {limits.silent_s:g} s")
        still = [n for n in pending if now - self._moved_at.get(n, self.began) >= limits.still_s]
        if not still or (limits.together and len(still) < len(pending)):
            return None
        # Of ranks that wait for each other, the one that stood still first holds the others up, as far as looks tell moments apart.
        nor = ", nor did the others" if limits.together and len(still) > 1 else ""
        return Still(min(still, key=lambda n: self._moved_at.get(n, self.began)), f"did not move for {limits.still_s:g} s{nor}")
