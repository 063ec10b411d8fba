"""Worlds at the point where tests begin."""

import pytest
from tests.unit.lprl_operator.decide.steps import advance

from lprl_api.names import LABEL_QUEUE


@pytest.fixture
def running(make_world, make_manifest, lib):
    """Factory: a world whose job is at step 3 or so of attempt 1."""

    def make(**spec):
        policy = {"maxRestarts": 2, "backoffSeconds": 60, **spec.pop("failurePolicy", {})}
        world = make_world(make_manifest(failurePolicy=policy, **spec))
        return advance(world, lib, "Running")

    return make


@pytest.fixture
def queued(make_world, make_manifest, lib):
    """Factory: a world whose job runs under a queue."""

    def make(seed=0, chaos=False, **spec):
        policy = {"maxRestarts": 2, "backoffSeconds": 60, **spec.pop("failurePolicy", {})}
        document = make_manifest(failurePolicy=policy, **spec)
        document["metadata"]["labels"] = {LABEL_QUEUE: "team"}
        return make_world(document, seed, chaos=chaos)

    return make
