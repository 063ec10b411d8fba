"""A stall is no movement: a driver that only reports does not count as alive."""

from datetime import timedelta

import pytest
from tests.unit.lprl_operator.decide.steps import edit, look, status

WAITS = "generation, 12 of 64 responses"


def talks_on(world, lib, seconds, every=30, **said):
    """The driver reports all the time; `moved` stands still."""
    still = 0
    for _ in range(0, seconds, every):
        world.now += timedelta(seconds=every)
        still += every
        world.report(1, 3, **{"moved": 70, "stillSeconds": still, "waitsFor": WAITS, **said})
        look(world, lib)


@pytest.fixture
def hung(running, lib):
    """A world at step 3 whose driver's main thread hangs from now on."""
    world = running(failurePolicy={"stallSeconds": 300})
    world._run_driver = lambda cluster, head: None
    world.report(1, 3, moved=70)
    look(world, lib)
    return world


def test_a_driver_that_reports_and_does_not_move_is_stalled(hung, lib):
    talks_on(hung, lib, 270)
    assert status(hung)["phase"] == "Running"
    talks_on(hung, lib, 60)
    (failure,) = status(hung)["failures"]
    assert (failure["reason"], status(hung)["restartsUsed"]) == ("Stalled", 1)
    assert failure["message"] == f"step 4: {WAITS}, no movement for 300 s"


def test_a_step_of_many_hours_in_which_something_moves_is_no_stall(hung, lib):
    for number in range(12 * 6):
        hung.now += timedelta(seconds=299)
        hung.report(1, 3, moved=71 + number)
        look(hung, lib)
    assert status(hung)["phase"] == "Running" and not status(hung).get("failures")


def test_the_stall_counts_from_the_last_movement_not_from_the_report_that_told_of_it(hung, lib):
    hung.now += timedelta(seconds=100)
    hung.report(1, 3, moved=71, stillSeconds=90)
    look(hung, lib)
    hung.now += timedelta(seconds=211)
    look(hung, lib)
    assert status(hung)["failures"][0]["reason"] == "Stalled"


def test_the_first_sight_of_a_driver_sets_no_clock_back_behind_the_last_movement(hung, lib):
    before = status(hung)["progressTime"]
    hung.now += timedelta(seconds=10)
    hung.report(1, 3, moved=71, stillSeconds=5000)
    look(hung, lib)
    assert status(hung)["progressTime"] == before


def test_a_driver_of_an_earlier_version_counts_as_moving_while_it_reports(hung, lib):
    talks_on(hung, lib, 900, moved=None, stillSeconds=0, waitsFor="")
    assert status(hung)["phase"] == "Running"


def test_a_job_that_a_newer_operator_takes_over_is_not_stalled_by_that(hung, lib):
    hung.document["status"]["progressMoved"] = None
    hung.now += timedelta(seconds=290)
    hung.report(1, 3, moved=70, stillSeconds=5)
    look(hung, lib)
    hung.now += timedelta(seconds=20)
    look(hung, lib)
    assert status(hung)["phase"] == "Running"


def test_a_suspended_job_is_not_waited_for_longer_than_a_stall_though_its_driver_reports(hung, lib):
    edit(hung, suspend=True)
    talks_on(hung, lib, 270)
    assert not any(c.deleting for c in hung.clusters.values())
    talks_on(hung, lib, 60)
    assert all(c.deleting for c in hung.clusters.values())
