"""Suspending, deadlines and ends in time, each as a scenario on the in-memory world."""

import json
from dataclasses import replace
from datetime import timedelta

from tests.unit.lprl_operator.decide.steps import advance, condition, edit, look, status

from lprl_operator.controller import reconcile
from lprl_operator.decide.actions import Create, ref_of


def test_suspend_is_graceful_and_resume_is_free(running, lib):
    world = running()
    edit(world, suspend=True)
    look(world, lib)
    assert json.loads(world.config_maps["toy-a1-progress"]["control.json"])["suspend"] is True
    assert condition(world, "Suspended")["reason"] == "Suspending"
    assert status(world)["phase"] == "Running"
    advance(world, lib, "Suspended")
    assert not world.clusters and not [p for p in world.pods if p.alive]
    spent = status(world)["activeSeconds"]
    world.now += timedelta(hours=5)
    look(world, lib)
    assert status(world)["activeSeconds"] == spent
    edit(world, suspend=False)
    advance(world, lib, "Succeeded")
    assert world.created_attempts == [1, 2]
    assert status(world)["restartsUsed"] == 0 and not status(world)["failures"]


def test_a_conversion_that_all_who_want_it_let_go_is_not_published(make_world, make_manifest, lib):
    """Two jobs share it and both are suspended while it is verified: the first gives up its part, the second stops it."""
    world = make_world(make_manifest())
    advance(world, lib, "Converting")
    while not any(name.startswith("lprl-finalise") for name in world.jobs):
        world.tick()
        look(world, lib)
    final = next(n for n in world.jobs if n.startswith("lprl-finalise"))
    world.change_job(final, finished="", completed=frozenset())
    convert = next(n for n in world.jobs if n.startswith("lprl-convert"))
    world.change_job(convert, owner_uids=frozenset({"uid-1", "uid-2"}))
    edit(world, suspend=True)
    look(world, lib)
    assert final in world.jobs and world.jobs[convert].owner_uids == {"uid-2"}
    world.change_job(convert, owner_uids=frozenset({"uid-1"}))
    look(world, lib)
    assert final not in world.jobs and world.jobs[convert].finished == "Complete"


def test_a_disruption_budget_comes_and_goes_with_its_cluster(make_world, make_manifest, lib):
    """One without pods is an alert in many places, and one nobody deletes stays until the job goes."""
    settings, seen = replace(lib.SETTINGS, pod_disruption_budget=True), []
    world = make_world(make_manifest(failurePolicy={"backoffSeconds": 0}))
    apply = world.apply

    def note(actions):
        for action in actions:
            ref = ref_of(action.document) if isinstance(action, Create) else getattr(action, "ref", None)
            if ref is not None and ref.kind in ("PodDisruptionBudget", "RayCluster"):
                seen.append((type(action).__name__, ref.kind))
        apply(actions)

    world.apply = note
    for _ in range(200):
        reconcile(world.cached_document(), world, world.now, settings)
        world.tick()
    assert status(world)["phase"] == "Succeeded"
    both = [("Create", "PodDisruptionBudget"), ("Create", "RayCluster"), ("DeleteOwned", "PodDisruptionBudget"), ("Delete", "RayCluster")]
    assert list(dict.fromkeys(seen)) == both


def test_suspend_does_not_wait_for_a_driver_that_does_not_answer(running, lib):
    world = running(failurePolicy={"stallSeconds": 100})
    world._run_driver = lambda cluster, head: None
    edit(world, suspend=True)
    look(world, lib)
    assert not any(c.deleting for c in world.clusters.values())
    world.now += timedelta(seconds=101)
    look(world, lib)
    assert all(c.deleting for c in world.clusters.values())


def test_suspended_from_birth_creates_nothing(make_world, make_manifest, lib):
    world = make_world(make_manifest(suspend=True))
    look(world, lib)
    assert status(world)["phase"] == "Suspended" and not world.jobs and not world.config_maps
    edit(world, suspend=False)
    advance(world, lib, "Succeeded")


def test_a_driver_that_finishes_while_it_is_asked_to_stop_has_finished(running, lib):
    world = running()
    edit(world, suspend=True)
    look(world, lib)
    world.exit_driver(world.head(), 0)
    look(world, lib)
    assert status(world)["phase"] == "Succeeded"


def test_deadline_counts_active_time_only(make_world, make_manifest, lib):
    world = make_world(make_manifest(activeDeadlineSeconds=300))
    advance(world, lib, "Running")
    used = (world.now - lib.START).total_seconds()
    edit(world, suspend=True)
    advance(world, lib, "Suspended")
    world.now += timedelta(hours=1)
    look(world, lib)
    assert status(world)["phase"] == "Suspended"
    edit(world, suspend=False)
    look(world, lib)
    world.now += timedelta(seconds=301 - used)
    look(world, lib)
    assert condition(world, "Failed")["reason"] == "DeadlineExceeded"


def test_deadline_does_not_beat_a_driver_that_finished(running, lib):
    world = running(activeDeadlineSeconds=10000)
    world.exit_driver(world.head(), 0)
    world.now += timedelta(hours=4)
    look(world, lib)
    assert status(world)["phase"] == "Succeeded"


def test_time_to_live(running, lib):
    world = running(ttlSecondsAfterFinished=100)
    world.exit_driver(world.head(), 0)
    look(world, lib)
    world.now += timedelta(seconds=99)
    look(world, lib)
    assert world.document is not None
    again = reconcile(world.cached_document(), world, world.now, lib.SETTINGS)
    assert 0 < again <= 1
    world.now += timedelta(seconds=2)
    look(world, lib)
    assert world.document is None
