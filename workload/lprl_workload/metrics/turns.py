"""When a report is due: routine in turn, news that somebody waits for at once. Reads no clock: seconds come in.

A report is a write of the API server, and makes one more by the operator; a thousand jobs share that server.
"""

from lprl_api.wire.progress import Progress

BURST = 4
"""Reports out of turn that may follow each other; one more for every interval that passes. A run's start takes two of them."""
FLOOR_S = 0.2
"""Reports are never closer than this."""


def news(report: Progress) -> tuple[object, ...]:
    """What must not wait for its turn, once it changes: that training begins or ends, a checkpoint, trouble, what was asked for."""
    stage = "ends" if report.phase in ("stopping", "finished") else "starts" if report.phase == "starting" else "runs"
    signal = report.reward_signal.state if report.reward_signal else "measuring"
    restarts = report.engine_restarts, report.trainer_restarts
    return stage, report.checkpoint, report.export, report.stability.state, report.effective_rollout, restarts, report.steps, signal


class Turns:
    """At most one report an interval in turn, and in the long run one more out of turn; BURST of those at once. Not thread-safe."""

    def __init__(self, interval_s: float) -> None:
        self.interval_s = max(interval_s, FLOOR_S)
        self._reported_at: float | None = None
        self._allowed = float(BURST)
        self._counted_at = 0.0
        self._urgent = False

    def changed(self, before: Progress, after: Progress) -> bool:
        """Note a change; returns whether it is news."""
        is_news = news(before) != news(after)
        self._urgent |= is_news
        return is_news

    def wait_s(self, now: float) -> float:
        """Seconds until the next report; 0 when it is due."""
        if self._reported_at is None:
            return 0.0
        turn = self._reported_at + self.interval_s
        if self._urgent:
            self._refill(now)
            spare = max(0.0, 1 - self._allowed) * self.interval_s
            turn = min(turn, max(self._reported_at + FLOOR_S, now + spare))
        return max(0.0, turn - now)

    def reported(self, now: float) -> None:
        """Note that everything known was told."""
        self._refill(now)
        if self._reported_at is not None and now < self._reported_at + self.interval_s:
            self._allowed = max(0.0, self._allowed - 1)
        self._reported_at, self._urgent = now, False

    def _refill(self, now: float) -> None:
        self._allowed = min(float(BURST), self._allowed + (now - self._counted_at) / self.interval_s)
        self._counted_at = now
