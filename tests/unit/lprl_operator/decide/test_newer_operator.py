"""An operator of a newer version finds jobs that an older one judged: what runs is left running."""

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, edit, look, status

from lprl_api.errors import UserError
from lprl_api.spec.job import LowPrecisionRLJobSpec
from lprl_operator.decide import intake


@pytest.fixture(autouse=True)
def fresh():
    """Plans are remembered by spec, and these tests change the planner."""
    intake._plan.cache_clear()
    yield
    intake._plan.cache_clear()


def stricter(monkeypatch):
    def no(*_, **__):
        raise UserError("does not fit any more", "use more nodes")

    monkeypatch.setattr(intake, "make_plan", no)
    intake._plan.cache_clear()


def test_a_stricter_plan_ends_nothing(running, lib, monkeypatch):
    world = running()
    stricter(monkeypatch)
    look(world, lib)
    assert status(world)["phase"] == "Running"
    advance(world, lib, "Succeeded")


def test_it_counts_for_an_edit(running, lib, monkeypatch):
    world = running()
    stricter(monkeypatch)
    edit(world, stability={"action": "hold"})
    look(world, lib)
    assert condition(world, "Validated")["reason"] == "DoesNotFit"


def test_a_new_field_with_a_default_is_no_edit(running, lib, monkeypatch):
    world = running()
    kind = LowPrecisionRLJobSpec.model_fields["topology"].annotation
    plain = kind.document
    monkeypatch.setattr(kind, "document", lambda self: {**plain(self), "newer": 3})
    look(world, lib)
    assert status(world)["phase"] == "Running", status(world)["message"]
    edit(world, stability={"action": "hold"})
    look(world, lib)
    assert status(world)["phase"] == "Running", "an edit that is allowed, after the upgrade"
    edit(world, topology={**world.document["spec"]["topology"], "nodes": 1})
    look(world, lib)
    assert condition(world, "Validated")["status"] == "False", "one that is not"


@pytest.fixture
def waiting(queued, lib):
    """A world whose second attempt is written into its RayCluster, which a queue holds."""
    world = advance(queued(), lib, "Running")
    world.full = True
    world.evict(next(iter(world.clusters.values())))
    for _ in range(12):
        look(world, lib)
        world.tick()
    (cluster,) = world.clusters.values()
    assert (status(world)["attempt"], cluster.template_attempt, cluster.suspended) == (2, 2, True)
    return world


def test_what_a_queue_holds_ready_runs_as_it_was_judged(waiting, lib, monkeypatch):
    stricter(monkeypatch)
    look(waiting, lib)
    assert status(waiting)["phase"] == "Provisioning"
    waiting.full = False
    advance(waiting, lib, "Succeeded")


@pytest.mark.parametrize("admitted", [False, True], ids=["held", "let-go"])
def test_what_would_have_to_be_rendered_anew_ends_with_the_reason(waiting, lib, monkeypatch, admitted):
    """Kueue puts templates back when it evicts: pods of the number before would come, and there is no plan to write this one's."""
    stricter(monkeypatch)
    (cluster,) = waiting.clusters.values()
    waiting.change_cluster(cluster.name, template_attempt=1)
    if admitted:
        waiting.change_cluster(cluster.name, told_to_suspend=False, suspended=False, emptied=False)
    look(waiting, lib)
    end = condition(waiting, "Failed")
    assert (end["status"], end["reason"], "use more nodes" in end["message"]) == ("True", "DoesNotFit", True)
    for _ in range(10):
        waiting.tick()
        look(waiting, lib)
        assert not waiting.pods
    assert not waiting.clusters
