"""How a process of the workload ends: exit code for the failure table, one message for the pod status, one line for a person.

A user error is one line with its remedy and never a traceback; anything unexpected keeps its traceback, because somebody has
to read it.
"""

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lprl_api.errors import StorageFullError, UserError
from lprl_api.names import ENV_CALLED_AS, ENV_TERMINATION_LOG, TERMINATION_MESSAGE_BYTES, ExitCode, Reason
from lprl_api.text import one_line, shortened
from lprl_api.wire.answers import ConversionAnswers, LargestError
from lprl_api.wire.progress import Progress, Termination
from lprl_workload.process.arguments import UsageError
from lprl_workload.process.blame import blame_of, words_of
from lprl_workload.process.errors import EpisodesFailedError, FencedError, RecoveryExhaustedError, TerminatedError, TrainerLostError

DEFAULT_LOG = Path("/dev/termination-log")
FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
USAGE = 2
"""Exit code of a wrong command line, as of `lprl`."""
MORE_SPACE = "free space or enlarge the volume"
_PERMISSION = "give this user the permission, or name another place"
PLACE_ERRNOS = {
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: "its volume is mounted read-only: name a place on another one",
    errno.ENOTDIR: "a file stands where a folder is needed: name another place",
    errno.ELOOP: "symbolic links there lead in a circle: name another place",
    errno.ENAMETOOLONG: "that name is too long for its file system: name a shorter one",
    errno.EISDIR: "a folder stands where a file is needed: name another place, or move that folder away",
}
"""Errors of a named file that the user's choice of places explains -> what to do."""
MISSING_ERRNOS = {
    errno.ENOENT: "check that path: nothing can be read, or made, there",
    errno.EEXIST: "a file stands where something is to be made: name another place",
}
"""The same, but only for commands called by hand: in a pod, files come and go under a twin that was restarted, and a retry helps."""
MORE_MEMORY = {
    False: "raise the memory of that container (podTemplate.*.resources, conversion.resources)",
    True: "lower topology.trainer.maxTokensPerGpu, topology.rollout.memoryFraction or sampling.maxResponseTokens, or plan more GPUs",
}
"""What to do about full memory of the host, and of a GPU."""
NO_NUMBERS = "lower optimizer.learningRate or raise its warm-up; algorithm.checkForNan: false leaves such steps out and goes on"
FAILED_EPISODES = "mend the tool or function named, raise its timeoutSeconds, or allow more by episode.maxFailedFraction"
ENV_DEBUG = "LPRL_DEBUG"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ends because of an error."""

    code: int
    reason: str
    message: str
    remedy: str = ""
    unexpected: bool = False
    """Whether the traceback is worth printing."""
    owner: int | None = None
    """Of a fenced process: the attempt that owns the folder."""

    @property
    def text(self) -> str:
        """Message and remedy as one line: `what was found; what to do`."""
        return one_line(f"{self.message}; {self.remedy}" if self.remedy else self.message)


def ending_of(error: BaseException, crash_reason: str, *, by_hand: bool = False) -> Ending:
    """Return how a process ends for `error`; `crash_reason` stands for what no other reason fits."""
    if isinstance(error, UserError):
        return _refusal(error)
    if isinstance(error, OSError):
        return _file_error(error, by_hand) or _crash(error, crash_reason, by_hand)
    if isinstance(error, FencedError):
        return Ending(ExitCode.FENCED, crash_reason, str(error), owner=error.owner)
    if isinstance(error, TerminatedError):
        return Ending(ExitCode.TERMINATED, Reason.HEAD_LOST, str(error))
    if isinstance(error, TrainerLostError | RecoveryExhaustedError):
        return Ending(ExitCode.TRAINER_LOST, Reason.WORKERS_LOST, str(error))
    if isinstance(error, EpisodesFailedError):
        return Ending(ExitCode.EPISODES_FAILED, Reason.EPISODES_FAILED, str(error), FAILED_EPISODES)
    if isinstance(error, KeyboardInterrupt):
        return Ending(128 + 2, crash_reason, "interrupted; the same command goes on where this one stopped")
    return _crash(error, crash_reason, by_hand)


def _crash(error: BaseException, reason: str, by_hand: bool) -> Ending:
    """An unexpected end. Of the driver, one that follows from program and input has an exit code of its own: no chance mends it."""
    blame, message = blame_of(error), words_of(error)
    again = blame != "chance" and reason == Reason.DRIVER_CRASHED and not by_hand
    code = ExitCode.PROGRAM_ERROR if again else ExitCode.CRASH
    if blame == "memory":
        return Ending(code, Reason.OUT_OF_MEMORY, message, MORE_MEMORY["cuda" in message.lower()], unexpected=True)
    return Ending(code, reason, message, NO_NUMBERS if "NonFiniteError" in message else "", unexpected=True)


def _refusal(error: UserError) -> Ending:
    if isinstance(error, StorageFullError):
        return Ending(ExitCode.STORAGE_FULL, Reason.STORAGE_FULL, error.message, error.remedy or MORE_SPACE)
    code = USAGE if isinstance(error, UsageError) and not _in_job() else ExitCode.USER_ERROR
    return Ending(code, Reason.USER_ERROR, error.message, error.remedy)


def _in_job() -> bool:
    """Return whether a job's failure policy reads the exit code: it would retry 2, which mends no command line."""
    return not os.environ.get(ENV_CALLED_AS) and (bool(os.environ.get(ENV_TERMINATION_LOG)) or DEFAULT_LOG.is_file())


def _file_error(error: OSError, by_hand: bool) -> Ending | None:
    """Return the ending of an error that the places named by the user explain; None for one that is nobody's choice."""
    named = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    if error.errno in FULL_ERRNOS:
        return Ending(ExitCode.STORAGE_FULL, Reason.STORAGE_FULL, f"{named or 'a volume'}: {error.strerror}", MORE_SPACE)
    remedy = (PLACE_ERRNOS | MISSING_ERRNOS if by_hand else PLACE_ERRNOS).get(error.errno or 0)
    if remedy is None or not named:
        return None
    return Ending(ExitCode.USER_ERROR, Reason.USER_ERROR, f"{named}: {error.strerror}", remedy)


def run_guarded(command: Callable[[], int], crash_reason: str, *, by_hand: bool = False) -> int:
    """Run a subcommand and return its exit code; an error becomes exit code, termination message and text on stderr.

    With LPRL_DEBUG set, every error keeps its traceback.
    """
    try:
        return command()
    except (Exception, KeyboardInterrupt) as error:
        ending = ending_of(error, crash_reason, by_hand=by_hand)
        if ending.unexpected or os.environ.get(ENV_DEBUG):
            traceback.print_exc()
        print(f"error: {one_line(ending.message)}", file=sys.stderr)
        if ending.remedy:
            print(f"  fix: {one_line(ending.remedy)}", file=sys.stderr)
        write_termination(ending.reason, ending.text, owner=ending.owner)
        return ending.code


def write_termination(
    reason: str,
    message: str,
    progress: Progress | None = None,
    answers: ConversionAnswers | None = None,
    owner: int | None = None,
    largest_error: LargestError | None = None,
) -> None:
    """Write the process's termination message; long ones are shortened in their middle, so that the JSON stays within 4096 bytes."""
    message = one_line(message)
    found = Termination(
        reason=reason, message=message, owner_attempt=owner, progress=progress, answers=answers, largest_error=largest_error
    )
    limit, text = len(message), ""
    while not text or (len(text.encode()) > TERMINATION_MESSAGE_BYTES and limit):
        text = found.model_copy(update={"message": shortened(message, limit)}).model_dump_json(by_alias=True)
        limit = limit * 3 // 4
    write_message(text)


def write_message(text: str) -> None:
    """Write a termination message of at most 4096 bytes to $LPRL_TERMINATION_LOG, else /dev/termination-log where it is writable.

    Raises ValueError when the text is longer: Kubernetes would cut it and leave no JSON.
    """
    raw = text.encode()
    if len(raw) > TERMINATION_MESSAGE_BYTES:
        raise ValueError(f"termination message of {len(raw)} bytes; at most {TERMINATION_MESSAGE_BYTES} fit")
    named = os.environ.get(ENV_TERMINATION_LOG)
    if named:
        Path(named).write_bytes(raw)
    elif DEFAULT_LOG.is_file():
        # Outside a pod the file does not exist, and nobody reads a message.
        with contextlib.suppress(PermissionError):
            DEFAULT_LOG.write_bytes(raw)
