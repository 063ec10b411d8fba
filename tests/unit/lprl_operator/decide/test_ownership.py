"""Nothing is deleted, joined or written that the job's own uid does not own, whatever its name and labels are."""

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, edit, look, status

from lprl_operator.decide.actions import AddOwner, Delete, DeleteOwned, RemoveOwner
from lprl_operator.decide.decision import parse_time
from lprl_operator.decide.observed import JobState, ObjectRef

REF = ObjectRef("v1", "ConfigMap", "rl", "toy-a1-progress")


def test_a_deletion_by_name_alone_cannot_be_said():
    with pytest.raises(TypeError):
        Delete(REF)
    for action in (Delete, DeleteOwned):
        with pytest.raises(ValueError, match="toy-a1-progress"):
            action(REF, "")


def touched(world):
    """Have the world note what is done to objects that were there before."""
    found, apply = [], world.apply

    def note(actions):
        found.extend(a for a in actions if isinstance(a, Delete | DeleteOwned | AddOwner | RemoveOwner))
        apply(actions)

    world.apply = note
    return found


def test_what_an_attempt_leaves_is_deleted_only_where_the_job_controls_it(running, lib):
    world = running(failurePolicy={"backoffSeconds": 0})
    done = touched(world)
    world.exit_driver(world.head(), 1)
    advance(world, lib, "Running")
    left = {a.ref.kind: a for a in done if a.ref.name in ("toy-a1-driver", "toy-a1-progress")}
    assert set(left) == {"RoleBinding", "Role", "ConfigMap"}, "the account is the cluster's, which stays"
    edit(world, podTemplate={"head": {"labels": {"other": "pods"}}})
    world.exit_driver(world.head(), 1)
    advance(world, lib, "Running")
    assert status(world)["cluster"] == "toy-a3"
    left |= {a.ref.kind: a for a in done if a.ref.name == "toy-a1-driver"}
    assert set(left) == {"RoleBinding", "Role", "ServiceAccount", "ConfigMap"}
    assert all(a.owner_uid == "uid-1" for a in left.values())


def test_a_config_map_of_somebody_else_survives_suspension_and_resumption(make_world, make_manifest, lib):
    world = make_world(make_manifest())
    world.config_maps["toy-a1-progress"] = {"mine": "1"}
    world.controllers["toy-a1-progress"] = "somebody"
    world._collect_garbage = lambda: None
    for _ in range(30):
        look(world, lib)
        world.tick()
    assert "toy-a1-progress refused, trying again" in status(world)["message"]
    edit(world, suspend=True)
    advance(world, lib, "Suspended")
    edit(world, suspend=False)
    advance(world, lib, "Running")
    assert world.config_maps["toy-a1-progress"] == {"mine": "1"}


LIVES = [
    pytest.param(lambda w: edit(w, suspend=True), id="suspended"),
    pytest.param(lambda w: w.exit_driver(w.head(), 1), id="restarted"),
    pytest.param(lambda w: w.exit_driver(w.head(), 3), id="failed"),
    pytest.param(lambda w: w.exit_driver(w.head(), 0), id="succeeded"),
]


@pytest.mark.parametrize("happens", LIVES)
@pytest.mark.parametrize("owners", [frozenset(), frozenset({"somebody"})], ids=["nobodys", "somebodys"])
def test_a_raycluster_with_the_jobs_labels_that_is_not_its_own_is_left_alone(running, lib, happens, owners):
    world = running(failurePolicy={"backoffSeconds": 0})
    theirs = replace(world.clusters["toy-a1"], attempt=7, name="theirs", uid="theirs", owner_uids=owners)
    world.clusters["theirs"] = theirs
    runs = world._run_cluster
    world._run_cluster = lambda cluster: runs(cluster) if cluster.name != "theirs" else None
    world._collect_clusters = lambda: None
    done = touched(world)
    happens(world)
    for _ in range(5):
        look(world, lib)
        world.tick()
    assert any(a.ref.name == "toy-a1" for a in done)
    assert not any(a.ref.name == "theirs" for a in done)


def test_a_raycluster_of_the_attempts_name_that_is_not_the_jobs_is_waited_for_with_its_name(running, lib):
    world = running()
    world.change_cluster("toy-a1", owner_uids=frozenset({"somebody"}))
    world._collect_clusters = lambda: None
    done = touched(world)
    look(world, lib)
    assert "toy-a1" in condition(world, "ClusterReady")["message"] and not done


def foreign(name, **more):
    return JobState(name, "theirs", "1", frozenset(), 1, foreign=True, **more)


@pytest.mark.parametrize("finished", ["", "Complete", "Failed"])
def test_an_inspect_job_that_is_not_the_jobs_is_neither_deleted_nor_believed(make_world, make_manifest, lib, finished):
    world = make_world(make_manifest())
    world.jobs["toy-inspect"] = foreign("toy-inspect", finished=finished)
    world._run_job = lambda job: None
    for _ in range(3):
        look(world, lib)
        world.tick()
    assert world.jobs["toy-inspect"].uid == "theirs"
    assert status(world)["phase"] == "Inspecting" and "toy-inspect" in status(world)["message"]


@pytest.mark.parametrize("finished", ["", "Complete", "Failed"])
@pytest.mark.parametrize("which", ["lprl-convert", "lprl-finalise"])
def test_a_conversion_job_that_nobody_of_ours_made_is_neither_joined_nor_deleted_nor_believed(
    make_world, make_manifest, lib, which, finished
):
    world = make_world(make_manifest())
    advance(world, lib, "Converting")
    name = next(n for n in world.jobs if n.startswith("lprl-convert")).replace("lprl-convert", which)
    world.jobs[name] = foreign(name, finished=finished)
    world._run_job = lambda job: None
    done = touched(world)
    for happens in ({}, {"suspend": True}, {"suspend": False}):
        edit(world, **happens)
        look(world, lib)
        world.tick()
    assert world.jobs[name].uid == "theirs" and not any(a.ref.name == name for a in done)
    assert status(world)["phase"] == "Converting" and name in status(world)["message"]


@pytest.mark.parametrize(("made_s", "taken"), [(1, True), (-60, False)], ids=["since", "before"])
def test_a_conversion_that_ended_without_this_job_was_checked_for_it_if_it_was_made_since(make_world, make_manifest, lib, made_s, taken):
    """Of many jobs that wait for one conversion some are too late to join it: they must not take it from those who did."""
    world = make_world(make_manifest())
    while not any(n.startswith("lprl-finalise") for n in world.jobs):
        look(world, lib)
        world.tick()
    since = parse_time(status(world)["activeSince"])
    convert, final = (next(n for n in world.jobs if n.startswith(f"lprl-{what}")) for what in ("convert", "finalise"))
    for name in (convert, final):
        world.change_job(name, finished="Complete", created=since + timedelta(seconds=made_s))
    world.change_job(convert, owner_uids=frozenset({"uid-other"}))
    before = {n: world.jobs[n].uid for n in (convert, final)}
    look(world, lib)
    assert ({n: world.jobs[n].uid for n in (convert, final) if n in world.jobs} == before) == taken
    assert (condition(world, "Converted")["status"] == "True") == taken
    assert status(advance(world, lib, "Succeeded"))["attempt"] == 1
