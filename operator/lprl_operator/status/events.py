"""Status difference -> events; sent only after the status write they belong to succeeded, so each is sent once."""

from lprl_api.derived import effects
from lprl_api.names import Condition, Reason
from lprl_api.text import shortened
from lprl_api.wire.status import ConditionStatus, LowPrecisionRLJobStatus
from lprl_operator.decide.actions import Event
from lprl_operator.status import conditions as of
from lprl_operator.status import queued

_WARNINGS = frozenset(
    {
        Reason.INVALID_SPEC,
        Reason.DOES_NOT_FIT,
        Reason.SHAPE_MISMATCH,
        Reason.CLUSTER_REFUSED,
        Reason.KUBERAY_MISSING,
        Reason.SANDBOX_POOL_NOT_READY,
        Reason.NODE_UNREACHABLE,
        Reason.IMAGE_PULL_FAILED,
        Reason.MISMATCH_DRIFT,
        Reason.CORRECTION_ENABLED,
        Reason.UPDATES_HELD,
        Reason.ROLLED_BACK,
        Reason.FELL_BACK_TO_BF16,
        Reason.RESTARTING,
        Reason.ALL_ZERO,
        Reason.ALL_EQUAL,
    }
)
_QUIET = frozenset(
    {
        Reason.NOT_STARTED,
        Reason.NOT_FINISHED,
        Reason.NOT_SUSPENDED,
        Reason.INSPECTED,
        Reason.CONVERTED,
        Reason.PROVISIONING,
        Reason.MEASURING_BASELINE,
        Reason.MEASURING,
        "",
    }
)
"""Conditions that come together with another event that says it, or say nothing yet."""
_MAX_MESSAGE = 1024


def events(old: LowPrecisionRLJobStatus, new: LowPrecisionRLJobStatus) -> tuple[Event, ...]:
    """One event per condition whose status or reason changed (messages change too often), and one per new attempt."""
    found = [_event(c) for c in new.conditions if _worth_telling(of.find(old.conditions, c.type), c)]
    if of.is_true(new.conditions, Condition.FAILED):  # what failed is told once, as what it is
        end = of.message(new.conditions, Condition.FAILED)
        found = [e for e in found if e.type == "Warning" or not end or end not in e.message]
    if new.attempt > old.attempt and new.restart_not_before is None:
        found.append(Event("Normal", Reason.STARTING, f"attempt {new.attempt}"))
    return tuple(dict.fromkeys([*_edit(old, new), *found, *queued.told(old.conditions, new.conditions)]))


def _edit(old: LowPrecisionRLJobStatus, new: LowPrecisionRLJobStatus) -> tuple[Event, ...]:
    """An accepted edit of a job that lives, and when it takes effect."""
    if not old.spec_parts or new.completion_time is not None or old.observed_generation == new.observed_generation:
        return ()
    paths = tuple(path for path in effects.changed(old.spec_parts, new.spec_parts) if path != "suspend")
    if not paths:
        return ()
    runs = new.attempt > 0 and new.training_start_time is not None
    told = effects.when(paths) if runs else f"{', '.join(paths)}: nothing trains yet, what waits is made anew with it"
    return (Event("Normal", Reason.SPEC_CHANGED, f"generation {new.observed_generation} of the spec: {told}"),)


def _worth_telling(before: ConditionStatus | None, after: ConditionStatus) -> bool:
    same = before is not None and (before.status, before.reason) == (after.status, after.reason)
    if same or after.reason in _QUIET:
        return False
    if after.reason == Reason.VARIED:  # as they should: news only after they did not
        return before is not None and before.status == "False"
    return not (after.type in (Condition.COMPLETE, Condition.FAILED) and after.status != "True")


def _event(condition: ConditionStatus) -> Event:
    bad = condition.reason in _WARNINGS or (condition.type == Condition.FAILED and condition.status == "True")
    message = condition.message or f"{condition.type} is {condition.status}"
    return Event("Warning" if bad else "Normal", condition.reason, shortened(message, _MAX_MESSAGE))
