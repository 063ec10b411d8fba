"""Jobs that a queue stopped for good and then deleted (Kueue's `afterDeactivatedByKueue`): nobody can activate them any more.

One made anew would have another try, and another one after that, which walks around the queue's limit. What was told of them is all
that is left.
"""

import re

from lprl_api.names import Condition, Reason
from lprl_api.text import shortened
from lprl_operator.decide.decision import Case
from lprl_operator.decide.failures import MAX_MESSAGE, Move, Verdict
from lprl_operator.decide.observed import JobState

_GIVEN_UP = re.compile(r"\bqueued: (Deactivated\w*: .*)")
"""What was told of a Job whose Workload is inactive."""


def inspection(case: Case, job: JobState | None) -> Verdict | None:
    """The end of a job whose inspect Job is gone, or goes, after its queue stopped it; None for any other."""
    return _end(case, Condition.INSPECTED, "inspection", Reason.INSPECTION_FAILED) if _goes(job) else None


def conversion(case: Case, convert: JobState | None, final: JobState | None) -> Verdict | None:
    """The same of a conversion, or of its finalise Job once that was told of."""
    finalising = any(c.type == Condition.CONVERTED and c.reason == Reason.FINALISING for c in case.status.conditions)
    inspected = any(c.type == Condition.INSPECTED and c.status == "True" for c in case.status.conditions)
    if not inspected or not _goes(final if finalising else convert):
        return None  # pools were waited for last: what is said of the conversion is older
    return _end(case, Condition.CONVERTED, "conversion", Reason.CONVERSION_FAILED)


def _goes(job: JobState | None) -> bool:
    return job is None or job.deleting


def _end(case: Case, condition: str, what: str, reason: str) -> Verdict | None:
    known = {c.type: c for c in case.status.conditions}
    suspended = known.get(Condition.SUSPENDED)
    if condition not in known or (suspended is not None and suspended.reason in (Reason.SUSPENDED, Reason.SUSPENDING)):
        return None  # a job that was suspended deleted it itself
    stopped = _GIVEN_UP.search(known[condition].message)
    if stopped is None:
        return None
    return Verdict(Move.FAIL, reason, shortened(f"the {what} was stopped by its queue and deleted since: {stopped[1]}", MAX_MESSAGE))
