"""Tools in sandboxes with real pods of the documented template, policies enforced: a fresh one an episode, none left, and no way out.

What enforces the NetworkPolicies is the tests' own (enforcer.py): rules made from the objects that agent-sandbox and the operator make.
A job that queues trains beside (queued.py).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cluster import given_sandboxes as given
from tests.cluster.enforcer import Enforcer
from tests.cluster.furnish import volume, wait_job
from tests.cluster.jobs import START_S, Job, submitting
from tests.cluster.kube import Kube, wait
from tests.cluster.outside import Outside

from lprl_fixtures.lookup import write_lookup

FINISH_S = 900
ASKING = 60
"""Of 64 episodes at least so many ask: the model is taught to, and draws."""


@pytest.fixture(scope="module")
def enforcer(kube: Kube) -> Iterator[Enforcer]:
    """The cluster's NetworkPolicies, enforced."""
    with Enforcer(kube).running() as found:
        yield found


@pytest.fixture(scope="module")
def home(request: pytest.FixtureRequest, kube: Kube, namespace: str, enforcer: Enforcer) -> str:
    """The namespace, where the example's inputs are in the making, and a job that queues trains if that is asked for as well."""
    write_lookup(volume(kube, namespace, "data") / "lookup", train=256, heldout=16)
    kube.apply([given.model(namespace)])
    if any(item.path.stem == "test_queue" for item in request.session.items):
        request.getfixturevalue("in_queue")
    return namespace


@pytest.fixture
def pythons(kube: Kube, home: str) -> Iterator[None]:
    """A pool of a tool that runs Python."""
    with given.filled(kube, home, given.pythons(home)):
        yield


@contextmanager
def with_sandboxes(kube: Kube, namespace: str, name: str) -> Iterator[Job]:
    """Have a job whose episodes hold two sandboxes."""
    with submitting(kube, namespace) as submit:
        job = submit(given.staying(name))
        job.wait_phase("Running", seconds=2 * START_S)
        wait(lambda: len(given.addresses(job)) == given.HELD, "two sandboxes", START_S, job.story)
        yield job


def test_code_in_a_sandbox_does_not_get_out_and_a_deleted_job_leaves_none(kube: Kube, home: str, pythons: None, enforcer: Enforcer) -> None:
    with with_sandboxes(kube, home, "stays") as job:
        with Outside(kube, job, enforcer) as outside:
            kept, controls = outside.tried()
        out = {name: said for name, said in kept.items() if not said.startswith("kept")}
        tame = {name: said for name, said in controls.items() if said != "out"}
        assert not out and not tame, json.dumps({"got out": out, "controls that were kept": tame}, indent=1)
        assert len(given.claims(job)) == given.HELD, "they had their sandboxes all the time"
        job.delete()
        given.nothing_left(kube, home, job.name)


def test_a_driver_killed_with_9_fails_its_job_and_leaves_none(kube: Kube, home: str, pythons: None) -> None:
    with with_sandboxes(kube, home, "killed") as job:
        given.kill_driver(job)
        job.wait_phase("Failed", seconds=START_S)
        assert "exit code 137" in job.told(), job.told()
        given.nothing_left(kube, home, job.name)


def test_the_example_has_64_episodes_at_once_over_a_pool_of_four_a_fresh_sandbox_each(kube: Kube, home: str, tmp_path: Path) -> None:
    wait_job(kube, home, "model-lookup")
    secret = (volume(kube, home, "data") / "lookup" / given.SECRET).read_text()
    with given.filled(kube, home, given.lookups(home, secret)), submitting(kube, home) as submit:
        job = submit(given.sixty_four())
        with given.watching(job, tmp_path) as told:
            job.wait_phase("Running", "Succeeded", seconds=2 * START_S)
            status = job.wait_phase("Succeeded", seconds=FINISH_S)
            given.nothing_left(kube, home, job.name)
        found = given.seen(told)
    print(f"{len(found.given)} claims, {found.most} at a time at most; {status['training']}")
    assert ASKING <= len(found.given) <= given.EPISODES and 0 < found.most <= given.AT_ONCE
    assert len({sandbox for sandbox, _ in found.given.values()}) == len(found.given), "a sandbox that two episodes had"
    assert status["attempt"] == 1 and float(status["training"]["reward"]) > 0.5, "what the sandboxes answered was believed"
