"""Errors of a running job. Wrong input is `lprl_api.errors.UserError`; what is here is for time, or another attempt, to mend."""

from typing import Literal


class WeightMismatchError(RuntimeError):
    """An engine did not receive exactly the weights that were sent; it must refuse to generate until a full update succeeds."""


class FencedError(RuntimeError):
    """A newer attempt (`owner`) owns the checkpoint folder: this process must stop writing (exit code FENCED)."""

    def __init__(self, message: str, owner: int) -> None:
        super().__init__(message, owner)
        self.owner = owner

    def __str__(self) -> str:
        return str(self.args[0])


class DamagedError(RuntimeError):
    """A file of a checkpoint is not what was written; the checkpoint before it may be."""


class DamagedElsewhereError(DamagedError):
    """Another rank read a damaged file, and says which."""


class EngineLostError(RuntimeError):
    """A rollout engine died or stopped answering; `engine` is its number."""

    def __init__(self, engine: int, message: str) -> None:
        super().__init__(engine, message)
        self.engine = engine

    def __str__(self) -> str:
        return str(self.args[1])


class ServerLostError(RuntimeError):
    """The server behind an engine died, hangs, or broke off: whoever knows the engine's number makes an EngineLostError of it."""


class TrainerLostError(RuntimeError):
    """A trainer rank died; the trainer group has to be rebuilt from the last checkpoint."""


class RecoveryExhaustedError(RuntimeError):
    """The in-attempt recovery budget is spent (exit code TRAINER_LOST: a new attempt follows)."""


class NonFiniteError(RuntimeError):
    """A loss or gradient is NaN or infinite; names the step and the quantity."""


class EpisodesFailedError(RuntimeError):
    """Too many episodes of a step failed (tools, time limits, the rollout function): names the first (exit code EPISODES_FAILED)."""


class DeadlineError(TimeoutError):
    """A wait ran out of time; the message says what it waited for and how long."""


class TerminatedError(RuntimeError):
    """The process was asked to end and what it would have saved is lost (exit code TERMINATED)."""


class StopAskedError(RuntimeError):
    """The run was asked to stop before it began: nothing has to be saved (exit code SUSPENDED)."""


class RemoteError(RuntimeError):
    """What a call in another process raised, as one line: whose process it is, the error's type and its last words."""

    def __init__(self, message: str, blame: Literal["chance", "program", "memory"] = "chance") -> None:
        super().__init__(message, blame)
        self.blame = blame
        """What the error is owed to, see `blame.py`."""

    def __str__(self) -> str:
        return str(self.args[0])


class FailedElsewhereError(RemoteError):
    """Another rank failed, by chance as far as this one knows, and says why: no cause of anything."""
