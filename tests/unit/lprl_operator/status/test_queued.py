"""Each word of a queue is an event, once."""

import pytest

from lprl_api.wire.status import LowPrecisionRLJobStatus
from lprl_operator.decide.decision import Finding
from lprl_operator.status.conditions import set_conditions
from lprl_operator.status.events import events

CLUSTER = "toy-a1 waits for admission by its queue"
SAYS = [
    pytest.param("ClusterReady", "Queued", CLUSTER, f"{CLUSTER}: Pending: no quota", 1, id="a-first-word"),
    pytest.param("ClusterReady", "Queued", f"{CLUSTER}: Pending: 4 more", f"{CLUSTER}: Pending: 3 more", 0, id="another-amount"),
    pytest.param("ClusterReady", "Queued", f"{CLUSTER}: Pending: 4 more", f"{CLUSTER}: Inadmissible: is inactive", 1, id="another-word"),
    pytest.param("Inspected", "Inspecting", "queued: waiting for admission", "queued: Pending: no quota", 1, id="an-inspection"),
    pytest.param("Converted", "WaitingForConversion", "queued: Pending: x", "queued: Preempted: by y", 1, id="a-conversion"),
    pytest.param("ClusterReady", "Queued", f"{CLUSTER}: Pending: x", CLUSTER, 0, id="no-word-any-more"),
]


@pytest.mark.parametrize(("kind", "reason", "before", "now", "count"), SAYS)
def test_a_word_of_the_queue_is_told_once(kind: str, reason: str, before: str, now: str, count: int) -> None:
    old = LowPrecisionRLJobStatus(conditions=set_conditions((), [Finding(kind, "False", reason, before)], "t", 1))
    new = old.model_copy(update={"conditions": set_conditions(old.conditions, [Finding(kind, "False", reason, now)], "t", 1)})
    assert [(e.type, e.reason, e.message) for e in events(old, new)] == [("Normal", "Queued", now)] * count
    assert events(new, new) == ()
