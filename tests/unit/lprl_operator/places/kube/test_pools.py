"""What is told of the warm pools that tools name, and how often the API server is asked."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lprl_api.names import API_VERSION, KIND, SANDBOX_API_VERSION
from lprl_operator.decide.observed import Key
from lprl_operator.kube.api import ApiError, Unavailable
from lprl_operator.places.kube.cache import Cache
from lprl_operator.places.kube.pools import PERIOD_S, Pools, pools_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = Key("team", "toy")
TOOLS = [
    {"name": "a", "sandbox": {"warmPool": "python"}},
    {"name": "b", "function": "x:y"},
    {"name": "c", "sandbox": {"warmPool": "shell"}},
]
JOB: dict[str, Any] = {"spec": {"episode": {"type": "tools", "tools": TOOLS}}}


class Sandboxes:
    """An API server with agent-sandbox, or without."""

    def __init__(self, pools: dict[str, Any], refuses: int = 404, group: bool = True) -> None:
        self.pools, self.refuses, self.group, self.asked = pools, refuses, group, list[str]()

    def get(self, path: str) -> Any:
        if path == "/apis/extensions.agents.x-k8s.io":
            if not self.group:
                raise ApiError(404, "NotFound", "404 page not found")
            return {}
        where, _, name = path.rpartition("/")
        assert where == f"/apis/{SANDBOX_API_VERSION}/namespaces/team/sandboxwarmpools"
        self.asked.append(name)
        if name not in self.pools:
            raise ApiError(self.refuses, "NotFound" if self.refuses == 404 else "Forbidden", "no")
        return self.pools[name]


def known(runs: bool = False, **spec: Any) -> Cache:
    """Return a cache that knows the job, and its RayCluster where it runs."""
    found = Cache()
    meta = {"name": "toy", "namespace": "team", "uid": "1", "resourceVersion": "5"}
    found.put(KIND, {"metadata": meta, "spec": spec or JOB["spec"]})
    owner = {"apiVersion": API_VERSION, "kind": KIND, "name": "toy", "uid": "1", "controller": True}
    cluster: dict[str, Any] = {**meta, "name": "toy-a1", "uid": "2", "creationTimestamp": "2026-01-01T00:00:00Z"}
    cluster["ownerReferences"] = [owner]
    cluster["labels"] = {"lprl.dev/job": "toy", "lprl.dev/attempt": "1"}
    if runs:
        found.put("RayCluster", {"metadata": cluster, "spec": {}})
        assert found.clusters(KEY)
    return found


def pool(ready: int, replicas: int | None = 3) -> dict[str, Any]:
    spec = {"sandboxTemplateRef": {"name": "plain"}} | ({} if replicas is None else {"replicas": replicas})
    return {"spec": spec, "status": {"readyReplicas": ready}}


def looked(api: Any, cache: Cache | None = None) -> dict[str, str]:
    found = Pools(api, cache or known())
    found.look(KEY, NOW)
    return dict(found.of(KEY))


def test_the_pools_of_a_job_are_those_its_tools_name() -> None:
    assert pools_of(JOB) == {"python", "shell"} and pools_of({"spec": {"episode": None}}) == frozenset() == pools_of({})


def test_a_pool_with_a_ready_sandbox_is_no_trouble_and_one_without_says_what_it_lacks() -> None:
    assert looked(Sandboxes({"python": pool(1), "shell": pool(0)})) == {
        "python": "",
        "shell": "0 of 3 sandboxes are ready (template plain): `kubectl get sandboxes` and their pods say why, or wait",
    }
    assert looked(Sandboxes({"python": pool(0, 0), "shell": pool(0, None)}))["python"] == "its replicas are 0: scale it up"


@pytest.mark.parametrize(
    ("refuses", "group", "words"),
    [
        (404, True, "there is none of that name in namespace team: make it, or name another one"),
        (404, False, "install agent-sandbox"),
        (403, False, "install agent-sandbox"),
        (403, True, "the operator may not read it: upgrade its release"),
    ],
)
def test_a_pool_that_cannot_be_read_says_what_is_missing(refuses: int, group: bool, words: str) -> None:
    assert words in looked(Sandboxes({"shell": pool(1)}, refuses, group))["python"]


@pytest.mark.parametrize("error", [ApiError(422, "Invalid", "conversion webhook: no"), Unavailable(500, "InternalError", "no webhook")])
def test_a_pool_that_its_api_does_not_tell_of_keeps_nobody_from_looking_at_the_job(error: ApiError) -> None:
    class Silent(Sandboxes):
        def get(self, path: str) -> Any:
            raise error

    assert looked(Silent({})) == dict.fromkeys(("python", "shell"), f"it cannot be read: {error.message}")


def test_pools_are_read_now_and_then_and_neither_for_jobs_that_run_nor_for_those_without() -> None:
    api = Sandboxes({"python": pool(0), "shell": pool(1)})
    found: Any = Pools(api, known())  # type: ignore[arg-type]
    for seconds in (0, 1, PERIOD_S - 1):
        found.look(KEY, NOW + timedelta(seconds=seconds))
    assert api.asked == ["python", "shell"]
    api.pools["python"] = pool(2)
    found.look(KEY, NOW + timedelta(seconds=PERIOD_S))
    assert found.of(KEY)["python"] == "" and len(api.asked) == 4
    assert looked(api, known(runs=True)) == {} == looked(api, known(steps=1)) and len(api.asked) == 4
    found.forget(KEY)
    assert found.of(KEY) == {}
