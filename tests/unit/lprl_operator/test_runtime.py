"""Runtime: what becomes of a job whose look failed, and of one that is gone."""

from typing import Any

import pytest

from lprl_api import names
from lprl_operator.decide.observed import Key
from lprl_operator.kube.api import ApiError, Unavailable
from lprl_operator.kube.clock import ServerClock
from lprl_operator.metrics import OperatorMetrics
from lprl_operator.runtime import Runtime
from lprl_operator.settings import Identity, parse

TOY = Key("ns", "toy")


class Api:
    """An API server that answers every list with nothing, or with an error."""

    error: Exception | None = None

    def __init__(self) -> None:
        self.clock = ServerClock()
        self.while_listing: Any = None

    def get(self, path: str, **query: str) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        if self.while_listing is not None:
            self.while_listing()
        return {"items": []}


def document(uid: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": "toy", "namespace": "ns", "uid": uid, "resourceVersion": str(version)}, "spec": {}}


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def runtime(api: Api) -> Runtime:
    settings = parse({"resyncSeconds": 60, "leaderElection": {"enabled": False}}, "test")
    return Runtime(settings, Identity("ns", "me"), api, OperatorMetrics())  # type: ignore[arg-type]


def known(runtime: Runtime) -> tuple[int, int, int]:
    return runtime.jobs(), len(runtime._read_at), len(runtime._pace._looked)


def look(runtime: Runtime) -> None:
    """One turn of a worker, when the job's turn came."""
    runtime._queue.add(TOY, 0)
    found = runtime._queue.get(5)
    assert found is not None
    runtime._handle(TOY)
    runtime._queue.done(TOY)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(Unavailable(429, "TooManyRequests", "slow down", 7.0), "unavailable"), (ApiError(500, "InternalError", "etcd"), "500")],
)
def test_what_was_refused_is_tried_again(api: Api, runtime: Runtime, error: Exception, kind: str) -> None:
    runtime.saw(names.KIND, "ADDED", document("first", 1))
    runtime._read_at[TOY] = -1e9  # a fresh read is due
    api.error = error
    look(runtime)
    assert runtime.metrics.reconcile_errors.labels(kind)._value.get() == 1
    assert len(runtime._queue._due) == 1, "it waits for its next try"


def test_a_job_found_gone_leaves_nothing(api: Api, runtime: Runtime) -> None:
    runtime.saw(names.KIND, "ADDED", document("first", 1))
    runtime._read_at[TOY] = -1e9
    look(runtime)
    runtime.saw(names.KIND, "DELETED", document("first", 1))
    assert known(runtime) == (0, 0, 0)


def test_a_job_made_again_while_the_old_one_is_found_gone_is_looked_at(api: Api, runtime: Runtime) -> None:
    """Between the answer that there is none and forgetting it, the watch tells of the new one."""
    runtime.saw(names.KIND, "ADDED", document("first", 1))
    runtime._read_at[TOY] = -1e9
    api.while_listing = lambda: runtime.saw(names.KIND, "ADDED", document("second", 2))
    look(runtime)
    assert runtime.jobs() == 1 and len(runtime._queue._due) == 1


def test_the_queue_of_a_follower_does_not_grow_and_one_that_leads_looks_at_all(api: Api) -> None:
    runtime = Runtime(parse({}, "test"), Identity("ns", "me"), api, OperatorMetrics())  # type: ignore[arg-type]

    def depth() -> float:
        return runtime.metrics.registry.get_sample_value("lprl_queue_depth") or 0.0

    for version in range(1, 20):
        runtime.saw(names.KIND, "ADDED" if version == 1 else "MODIFIED", document("first", version))
    assert (depth(), runtime.jobs()) == (0.0, 1)
    runtime._changed(True)
    assert depth() == 1.0
    runtime.saw(names.KIND, "DELETED", document("first", 20))
    runtime.saw(names.KIND, "ADDED", document("second", 21))
    runtime._changed(False)
    assert depth() == 0.0, "nor does one that led before keep what waited"
    runtime._changed(True)
    assert depth() == 1.0
