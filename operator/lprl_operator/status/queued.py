"""What a queue said, as events: one for each of its words, that is whenever the reason why something is held becomes another one.

Amounts in its messages change with every job that comes and goes, so a message alone is no news.
"""

import re
from collections.abc import Iterable, Sequence

from lprl_api.names import Condition, Reason
from lprl_api.wire.status import ConditionStatus
from lprl_operator.decide.actions import Event
from lprl_operator.status import conditions as of

HELD = (Condition.INSPECTED, Condition.CONVERTED, Condition.CLUSTER_READY)
"""Conditions of the stages that a queue holds."""
_WORD = re.compile(r"(?:\bqueued|by its queue): ([A-Z]\w*)")


def word(condition: ConditionStatus | None) -> str:
    """Return the queue's own reason that a condition's message begins with; empty where none holds anything."""
    found = _WORD.search(condition.message) if condition is not None and condition.status != "True" else None
    return found[1] if found else ""


def told(old: Sequence[ConditionStatus], new: Iterable[ConditionStatus]) -> tuple[Event, ...]:
    """Return events for words that were not said before, of conditions whose own reason stayed (else that is the event)."""
    found = []
    for condition in (c for c in new if c.type in HELD):
        before = of.find(old, condition.type)
        said = word(condition)
        if before is not None and before.reason == condition.reason and said not in ("", word(before)):
            found.append(Event("Normal", Reason.QUEUED, condition.message))
    return tuple(found)
