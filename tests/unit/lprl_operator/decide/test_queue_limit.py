"""A queue's own limit of time ends a job with the queue's reason; whatever else a queue stops can go on."""

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, edit, look, status

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


GIVEN_UP = "DeactivatedDueToRequeuingLimitExceeded: The workload is deactivated due to exceeding the maximum number of re-queuing retries"


@pytest.mark.parametrize("ran", [False, True], ids=["never-ran", "ran"])
def test_what_its_queue_gave_up_on_and_took_away_has_ended(queued, lib, ran):
    """Kueue deletes what it deactivated where it is told to (objectRetentionPolicies): another RayCluster would walk around it."""
    world = queued()
    world.full = not ran
    advance(world, lib, "Running" if ran else "Provisioning")
    world.full = True
    for _ in range(10):
        if ran and status(world)["attempt"] == 1:
            world.evict(world.clusters["toy-a1"])
        look(world, lib)
        world.tick()
    assert condition(world, "ClusterReady")["reason"] == "Queued"
    world.change_cluster("toy-a1", queue=GIVEN_UP)
    look(world, lib)
    attempt = status(world)["attempt"]
    del world.clusters["toy-a1"]
    for _ in range(5):
        look(world, lib)
        world.tick()
    failed = condition(world, "Failed")
    assert (failed["status"], failed["reason"], status(world)["attempt"]) == ("True", "ClusterDeleted", attempt)
    assert GIVEN_UP in failed["message"] and status(world)["restartsUsed"] == 0
    assert not world.clusters


def test_what_somebody_deletes_while_it_queues_is_made_anew(queued, lib):
    world = queued()
    world.full = True
    advance(world, lib, "Provisioning")
    for _ in range(5):
        look(world, lib)
        world.tick()
    del world.clusters["toy-a1"]
    world.full = False
    assert status(advance(world, lib, "Succeeded"))["attempt"] == 2


def stopped_job(world, lib, which):
    """Look until a Job of this kind is there, which its queue has given up on."""
    world._run_job = lambda job, run=world._run_job: None if which in job.name else run(job)
    while not any(which in n for n in world.jobs):
        look(world, lib)
        world.tick()
    (name,) = (n for n in world.jobs if which in n)
    world.change_job(name, suspended=True, queue=GIVEN_UP)
    look(world, lib)
    assert GIVEN_UP in status(world)["message"]
    return name


JOBS = pytest.mark.parametrize("which", ["-inspect", "lprl-convert", "lprl-finalise"])


@JOBS
@pytest.mark.parametrize("going", [False, True], ids=["gone", "going"])
def test_a_job_that_its_queue_gave_up_on_and_took_away_has_ended(queued, lib, which, going):
    world = queued()
    name = stopped_job(world, lib, which)
    if going:
        world.change_job(name, deleting=True)
        look(world, lib)
    world.jobs.pop(name, None)
    for _ in range(3):
        look(world, lib)
        world.tick()
    failed = condition(world, "Failed")
    reason = "InspectionFailed" if which == "-inspect" else "ConversionFailed"
    assert (failed["status"], failed["reason"]) == ("True", reason)
    assert GIVEN_UP in failed["message"] and name not in world.jobs


@JOBS
def test_a_job_that_was_activated_again_goes_on(queued, lib, which):
    world = queued()
    name = stopped_job(world, lib, which)
    world.change_job(name, suspended=False, queue="")
    del world._run_job
    assert status(advance(world, lib, "Succeeded"))["attempt"] == 1


@JOBS
def test_what_a_suspension_took_away_is_made_anew(queued, lib, which):
    world = queued()
    stopped_job(world, lib, which)
    edit(world, suspend=True)
    advance(world, lib, "Suspended")
    edit(world, suspend=False)
    del world._run_job
    assert status(advance(world, lib, "Succeeded"))["attempt"] == 1


@pytest.mark.parametrize("which", ["-inspect", "lprl-convert"])
def test_what_is_corrected_is_made_anew(queued, lib, which):
    world = queued()
    name = stopped_job(world, lib, which)
    before = world.jobs[name].uid
    edit(world, podTemplate={"conversion": {"nodeSelector": {"disk": "fast"}}})
    look(world, lib)
    assert world.jobs[name].uid != before
    del world._run_job
    assert status(advance(world, lib, "Succeeded"))["attempt"] == 1
