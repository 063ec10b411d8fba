"""The failure table: who ended how -> what happens next, and whether it costs a restart.

docs/failure-modes.md says the same to people. Anything not listed is a crash: retried within the budget.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import ValidationError

from lprl_api.names import ExitCode, Reason
from lprl_api.text import last_words, one_line, shortened
from lprl_api.wire import lenient
from lprl_api.wire.progress import Termination
from lprl_api.wire.status import FailureRecord
from lprl_operator.decide.observed import ContainerState, Exit, JobState, PodState

MAX_MESSAGE = 1024
"""Characters of a foreign message that reach a condition."""
OOM_KILLED = "OOMKilled"
RAISE = "raise requests and limits of spec.podTemplate."
_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+(\.\d+)*")


class Move(StrEnum):
    """What happens to the job."""

    SUCCEED = "succeed"
    FAIL = "fail"
    RESTART = "restart"
    """A new attempt, charged to the budget."""
    RESTART_FREE = "restart-free"
    """A new attempt that is nobody's failure: eviction, suspension."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one ended container, Job or attempt."""

    move: Move
    reason: str
    message: str
    termination: Termination | None = None
    repeats: bool = False
    """Whether the error is none of chance, so that the same one again at the same step is not worth a third attempt."""


DRIVER: dict[int, tuple[Move, str, str]] = {
    ExitCode.OK: (Move.SUCCEED, Reason.SUCCEEDED, "the run finished"),
    ExitCode.USER_ERROR: (Move.FAIL, Reason.USER_ERROR, "the driver refused its input"),
    ExitCode.SUSPENDED: (Move.RESTART_FREE, Reason.SUSPENDED, "checkpointed and stopped as asked"),
    ExitCode.STORAGE_FULL: (Move.FAIL, Reason.STORAGE_FULL, "no space left on a volume"),
    ExitCode.FENCED: (Move.RESTART, Reason.FENCED, "a newer attempt owns the checkpoint folder"),
    ExitCode.PROGRAM_ERROR: (Move.RESTART, Reason.DRIVER_CRASHED, "the driver met an error that is no chance"),
    ExitCode.EPISODES_FAILED: (Move.RESTART, Reason.EPISODES_FAILED, "too many episodes of a step failed"),
    ExitCode.TRAINER_LOST: (Move.RESTART, Reason.WORKERS_LOST, "trainer ranks could not be rebuilt inside the attempt"),
    ExitCode.TERMINATED: (Move.RESTART, Reason.HEAD_LOST, "the driver was asked to end and could make no checkpoint"),
}

_JOB_EXITS = {ExitCode.USER_ERROR: Reason.USER_ERROR, ExitCode.STORAGE_FULL: Reason.STORAGE_FULL}


def driver_verdict(head: PodState, driver: ContainerState) -> Verdict:
    """Judge a terminated driver by its exit code; its termination message explains."""
    termination = parse_termination(driver.message)
    said = termination.message if termination is not None else driver.message
    if driver.reason == OOM_KILLED:
        return Verdict(
            Move.RESTART, Reason.OUT_OF_MEMORY, _text(f"the driver was killed for memory; {RAISE}driver.resources", said), termination
        )
    code = -1 if driver.exit_code is None else driver.exit_code
    if code in DRIVER:
        move, reason, text = DRIVER[code]
        if termination is not None and termination.reason == Reason.OUT_OF_MEMORY:
            reason = Reason.OUT_OF_MEMORY  # of a GPU: no kernel kills for it
        return Verdict(move, reason, _text(text, said), termination, repeats=code in (ExitCode.PROGRAM_ERROR, ExitCode.EPISODES_FAILED))
    if head.disruption:
        return Verdict(Move.RESTART_FREE, Reason.EVICTED, _text(f"the head pod was evicted ({head.disruption})", said), termination)
    return Verdict(Move.RESTART, Reason.DRIVER_CRASHED, _text(f"the driver ended with exit code {code}", said), termination)


def head_verdict(head: PodState) -> Verdict | None:
    """Judge a head whose Ray ended, or which ended without a word of its driver; None while it lives."""
    if head.ray is not None and head.ray.state == "terminated":
        if head.ray.reason == OOM_KILLED:
            return Verdict(Move.RESTART, Reason.OUT_OF_MEMORY, f"Ray on the head {head.name} was killed for memory; {RAISE}head.resources")
        lost = f"Ray on the head {head.name} ended with exit code {head.ray.exit_code}"
    elif not head.alive:
        lost = f"the head pod {head.name} ended ({head.phase})"
    else:
        return None
    if head.disruption:
        return Verdict(Move.RESTART_FREE, Reason.EVICTED, f"{lost} by eviction ({head.disruption})")
    return Verdict(Move.RESTART, Reason.HEAD_LOST, lost)


def departed_verdict(head: PodState) -> Verdict | None:
    """Judge a head that is gone by how it was last seen; None when that does not say why."""
    if head.disruption and head.alive:
        return Verdict(Move.RESTART_FREE, Reason.EVICTED, f"the head pod {head.name} was evicted ({head.disruption})")
    return head_verdict(head)


def job_verdict(job: JobState, default: str) -> Verdict:
    """Judge a failed inspect, convert or finalise Job by its worst exit; `default` is the reason of an unknown one."""
    decisive = min(job.exits, key=_severity, default=None)
    if decisive is None:
        return Verdict(Move.FAIL, default, _text(f"Job {job.name} failed: {job.reason}", job.message))
    termination = parse_termination(decisive.message)
    said = termination.message if termination is not None else decisive.message
    reason = _JOB_EXITS.get(decisive.exit_code, default)
    if decisive.reason == OOM_KILLED:
        reason, said = Reason.OUT_OF_MEMORY, said or "killed for memory; raise requests and limits of spec.conversion.resources"
    return Verdict(Move.FAIL, reason, _text(f"Job {job.name} index {decisive.index}: exit code {decisive.exit_code}", said), termination)


def repeated(failures: Sequence[FailureRecord]) -> bool:
    """Whether the newest two failures are the same one at the same step; numbers in them (addresses, bytes, ranks) may differ."""
    if len(failures) < 2:
        return False
    before, now = failures[-2:]
    return (before.reason, before.step, _NUMBERS.sub("#", before.message)) == (now.reason, now.step, _NUMBERS.sub("#", now.message))


def newest_attempt(verdict: Verdict) -> int | None:
    """The attempt that owns the checkpoint folder, as a fenced driver reported it; None when it did not."""
    return verdict.termination.owner_attempt if verdict.termination is not None else None


def parse_termination(message: str) -> Termination | None:
    """Parse a termination message; None when the container died without writing one (it may hold the end of its log)."""
    try:
        return lenient.read_json(Termination, message)
    except ValidationError:
        return None


def _severity(end: Exit) -> tuple[int, int]:
    ranks = {ExitCode.USER_ERROR: 0, ExitCode.STORAGE_FULL: 1, ExitCode.OK: 9}
    return ranks.get(end.exit_code, 2), end.index


def _text(ours: str, theirs: str) -> str:
    """Our words and what a process said, in one line; of a log that ends in a traceback, what that ends with."""
    theirs = last_words(theirs)
    return shortened(one_line(f"{ours}: {theirs}") if theirs else ours, MAX_MESSAGE)
