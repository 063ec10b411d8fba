"""Whether a run moves. A report says that the driver's process lives; only its counter of what moved says that the run gets on."""

from lprl_api.wire.progress import Progress
from lprl_operator.decide.decision import Case


def clocked(case: Case, progress: Progress | None) -> Case:
    """Note what the driver said last, and by our own clock when the run last moved (first: when it could have begun to)."""
    if progress is None:
        return case
    if progress.sequence != case.status.progress_sequence:
        case = case.remember(progress_sequence=progress.sequence)
    if case.status.progress_time is not None and not has_moved(case, progress):
        return case
    # Times of one form and zone sort as text. The clock is never set back: a driver may have stood still before it was first seen.
    moved_at = max(case.stamp(-progress.still_seconds), case.status.progress_time or "")
    return case.remember(progress_moved=_mark(progress), progress_time=moved_at)


def has_moved(case: Case, progress: Progress | None) -> bool:
    """Whether anything moved since what status remembers."""
    return progress is not None and _mark(progress) != case.status.progress_moved


def stands_still(case: Case) -> bool:
    """Whether nothing moved for as long as a stall takes, as far as was noted."""
    return case.seconds_since(case.status.progress_time) >= case.job.spec.failure_policy.stall_seconds


def still_text(case: Case, progress: Progress | None) -> str:
    """`step 3: generation, 12 of 64 responses, no movement for 300 s`."""
    what = f"step {progress.step + 1}: {progress.waits_for}" if progress is not None and progress.waits_for else doing(case, progress)
    return f"{what}, no movement for {case.job.spec.failure_policy.stall_seconds} s"


def doing(case: Case, progress: Progress | None) -> str:
    """What the driver said last that it does."""
    if progress is None:
        return "the driver never reported"
    # A driver that has not resumed yet does not know how far earlier attempts came.
    known = case.status.training.step if progress.phase in ("starting", "loading") else 0
    text = f"{progress.phase}, step {max(known, progress.step)}/{progress.steps}"
    return f"{text}: {progress.message}" if progress.message else text


def _mark(progress: Progress) -> int:
    """The counter; of a driver of an earlier version, which has none, the number of its report."""
    return progress.sequence if progress.moved is None else progress.moved
