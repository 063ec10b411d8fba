"""How often a run may replace lost engines and trainers before the attempt gives up."""

import logging
from dataclasses import dataclass

from lprl_workload.process.errors import RecoveryExhaustedError, TerminatedError, TrainerLostError

log = logging.getLogger(__name__)

RECOVERIES = 3
"""Engine and trainer recoveries each within one stretch of `refill_steps` steps."""


@dataclass(slots=True)
class Budget:
    """A recovery budget that refills as the run advances."""

    what: str
    refill_steps: int
    limit: int = RECOVERIES
    total: int = 0
    """Recoveries since the start of the attempt."""
    _spent: int = 0
    _since: int = 0

    def spend(self, step: int, cause: Exception) -> None:
        """Count one recovery at `step`; raises RecoveryExhaustedError when the budget is spent."""
        if step >= self._since + self.refill_steps:
            self._spent = 0
        if self._spent == 0:
            self._since = step
        self._spent += 1
        self.total += 1
        if self._spent > self.limit:
            raise RecoveryExhaustedError(f"{self.what} lost {self._spent} times since step {self._since}: {cause}") from cause


def ends_instead(lost: TrainerLostError, stop: bool, suspend: bool) -> bool:
    """Whether a run that lost its trainer ends suspended, at its last checkpoint, instead of rebuilding it.

    Raises TerminatedError when its pod has to go (`stop`): what was trained since that checkpoint is lost.
    """
    if stop:
        raise TerminatedError(f"asked to end, and the trainer was lost before a checkpoint could be made: {lost}") from lost
    if suspend:
        log.warning("trainer lost while asked to suspend (%s): the last checkpoint counts", lost)
    return suspend
