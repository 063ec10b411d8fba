"""A queue's own limit of time ends a job with the queue's reason; whatever else a queue stops can go on."""

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, look, status

UP = "Deactivated: The workload is deactivated due to exceeding the maximum execution time"
OLDER = "DeactivatedDueToMaximumExecutionTimeExceeded: exceeding the maximum execution time"


@pytest.mark.parametrize("words", [UP, OLDER])
@pytest.mark.parametrize("told", ["at once", "later"])
def test_what_trained_as_long_as_its_queue_lets_it_has_ended(queued, lib, words, told):
    world = advance(queued(), lib, "Running")
    world.evict(world.clusters["toy-a1"])
    if told == "later":
        look(world, lib)
        assert (status(world)["attempt"], status(world)["failures"][-1]["reason"]) == (2, "Evicted")
    world.change_cluster("toy-a1", queue=words)
    look(world, lib)
    failed = condition(world, "Failed")
    assert (failed["status"], failed["reason"]) == ("True", "ExecutionTimeExceeded")
    assert words in failed["message"]
    assert status(world)["restartsUsed"] == 0
    assert all(c.deleting for c in world.clusters.values())


def test_what_somebody_made_inactive_waits_until_it_is_active_again(queued, lib):
    world = advance(queued(), lib, "Running")
    world.evict(world.clusters["toy-a1"])
    world.change_cluster("toy-a1", queue="Deactivated: The workload is deactivated")
    look(world, lib)
    assert (status(world)["attempt"], condition(world, "Failed")["status"]) == (2, "False")
