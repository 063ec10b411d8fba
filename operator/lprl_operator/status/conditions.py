"""Conditions: constant reasons, and a transition time that moves only when the status flips."""

from collections.abc import Iterable, Sequence

from lprl_api.names import Condition
from lprl_api.wire.status import ConditionStatus
from lprl_operator.decide.decision import Finding


def set_conditions(old: Sequence[ConditionStatus], findings: Iterable[Finding], now: str, generation: int) -> tuple[ConditionStatus, ...]:
    """Return the conditions after these findings, in the order of `Condition.ALL`; one without a finding stays as it is."""
    before = {c.type: c for c in old}
    after = dict(before)
    for finding in findings:
        same = before.get(finding.type)
        kept = same.last_transition_time if same is not None and same.status == finding.status else now
        after[finding.type] = ConditionStatus(
            type=finding.type,
            status=finding.status,
            reason=finding.reason,
            message=finding.message,
            last_transition_time=kept,
            observed_generation=generation,
        )
    return tuple(after[kind] for kind in Condition.ALL if kind in after)


def find(conditions: Iterable[ConditionStatus], kind: str) -> ConditionStatus | None:
    """Return the condition of a type."""
    return next((c for c in conditions if c.type == kind), None)


def is_true(conditions: Iterable[ConditionStatus], kind: str) -> bool:
    """Whether a condition is True; an absent one is not."""
    found = find(conditions, kind)
    return found is not None and found.status == "True"


def reason(conditions: Iterable[ConditionStatus], kind: str) -> str:
    """Reason of a condition, empty when it is absent."""
    found = find(conditions, kind)
    return found.reason if found is not None else ""


def message(conditions: Iterable[ConditionStatus], kind: str) -> str:
    """Message of a condition, empty when it is absent."""
    found = find(conditions, kind)
    return found.message if found is not None else ""
