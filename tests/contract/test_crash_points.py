"""The operator dies at the n-th write to the API server, for every n, before it arrives and after it was done: each life ends as
an undisturbed one does, with nothing made twice. Real API server, Job controller and KubeRay; pods are played by `hand`.

With LPRL_CRASHES=all also for a life with a crash of its driver, a suspension and three attempts (a quarter of an hour on two cores).
"""

import os
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.conftest import USERS_KUBECONFIG
from tests.contract.hand import Hand, manifest

from lprl_api import names
from lprl_api.crd.generate import crd
from lprl_api.names import ExitCode
from lprl_operator.controller import reconcile
from lprl_operator.decide.observed import Key
from lprl_operator.kube.api import MERGE, ApiError, KubeApi
from lprl_operator.places.kube.cache import Cache
from lprl_operator.places.kube.cluster import KubeCluster
from lprl_operator.places.kube.eventlog import EventLog
from lprl_operator.resources.settings import RenderSettings

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
WATCHED = {
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "RayCluster": "/apis/ray.io/v1/namespaces/{}/rayclusters",
    "Pod": "/api/v1/namespaces/{}/pods",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    names.KIND: "/apis/lprl.dev/v1alpha1/namespaces/{}/lowprecisionrljobs",
}
WATCH_CACHE = {"resourceVersion": "0"}
"""As watches see it: what the API server has in memory, which may be a moment old."""
LIFE_S = 240
LIVES = ("calm", "eventful") if os.environ.get("LPRL_CRASHES") == "all" else ("calm",)
AT_ONCE = 8
PAUSE_S = 0.2
"""Between two looks: what others do meanwhile takes longer, and each look lists everything."""


class Crash(BaseException):
    """The process is gone."""


class Mortal(KubeApi):
    """Dies at its n-th write, before the request is sent or after its answer came."""

    writes = 0
    dies_at = 0
    after = False

    def request(
        self, method: str, path: str, query: Mapping[str, str], document: Any = None, content_type: str = "application/json"
    ) -> Any:
        if method == "GET":
            return super().request(method, path, query, document, content_type)
        self.writes += 1
        dies = self.writes == self.dies_at
        if dies and not self.after:
            raise Crash
        try:
            return super().request(method, path, query, document, content_type)
        finally:
            if dies:
                raise Crash


class Life:
    """One job from its creation to its end, in a namespace of its own."""

    def __init__(self, dies_at: int, after: bool, kind: str) -> None:
        self.eventful, self.was_suspended = kind == "eventful", False
        self.key = Key(f"crash-{uuid.uuid4().hex[:8]}", "toy")
        self.api = Mortal.connect()
        assert isinstance(self.api, Mortal)
        self.api.dies_at, self.api.after = dies_at, after
        self.crashes = 0
        self._god = KubeApi.connect()
        self._events = EventLog(self._god, "test")
        self._god.post("/api/v1/namespaces", {"metadata": {"name": self.key.namespace}})
        self.hand = Hand(self._god, self.key.namespace)
        self.hand.drives = not self.eventful
        self._job = f"{WATCHED[names.KIND].format(self.key.namespace)}/toy"

    def run(self) -> dict[str, Any]:
        """Return the final document."""
        policy = {"failurePolicy": {"backoffSeconds": 0}}
        self._god.post(WATCHED[names.KIND].format(self.key.namespace), manifest("toy", self.key.namespace, **policy))
        deadline = time.monotonic() + LIFE_S
        cache = Cache()
        while time.monotonic() < deadline:
            self._watch(cache)
            try:
                cluster = KubeCluster(self.api, cache, self._events)
                document = cache.document(self.key)
                assert document is not None
                if document.get("status", {}).get("completionTime") and not self._left():
                    return dict(document)
                cluster.refresh(self.key, datetime.now(UTC))
                reconcile(document, cluster, datetime.now(UTC), RenderSettings())
            except Crash:
                self.crashes += 1
                cache = Cache()
            self.hand.step()
            if self.eventful:
                self._happen(cache.document(self.key))
            time.sleep(PAUSE_S)
        raise AssertionError(f"not finished: {cache.document(self.key)}")

    def _happen(self, document: Mapping[str, Any] | None) -> None:
        """The first driver crashes, the second one is suspended, the third one finishes."""
        status = (document or {}).get("status", {})
        attempt, phase = status.get("attempt", 0), status.get("phase")
        if (attempt, phase) == (1, "Running"):
            self.hand.end_driver(ExitCode.CRASH, "crashed")
        elif (attempt, phase, self.was_suspended) == (2, "Running", False):
            self._god.patch(self._job, {"spec": {"suspend": True}}, MERGE)
            self.was_suspended = True
        elif (attempt, phase) == (2, "Running"):
            self.hand.end_driver(ExitCode.SUSPENDED, "suspended")
        elif phase == "Suspended":
            self.hand.drives = True
            self._god.patch(self._job, {"spec": {"suspend": False}}, MERGE)

    def close(self) -> None:
        """Remove it from a cluster that stays; ours is thrown away, and emptying a namespace takes requests for every kind there is."""
        if USERS_KUBECONFIG:
            self._god.delete(f"/api/v1/namespaces/{self.key.namespace}", {"propagationPolicy": "Background"})

    def _left(self) -> list[Any]:
        return list(self._god.get(WATCHED["RayCluster"].format(self.key.namespace))["items"])

    def _watch(self, cache: Cache) -> None:
        """Tell a cache what watches would: whatever is there, and that the rest is gone."""
        clusters = self._left()  # before the others: none is taken for gone while it was being made
        for document in clusters:
            cache.put("RayCluster", document)
        for kind, path in WATCHED.items():
            if kind != "RayCluster":
                selector = {"labelSelector": f"{names.LABEL_ROLE}=progress"} if kind == "ConfigMap" else {}
                for document in self._god.get(path.format(self.key.namespace), **WATCH_CACHE, **selector)["items"]:
                    cache.put(kind, document)
        if cache.document(self.key) is not None and not clusters:
            for state in cache.clusters(self.key):
                cache.remove("RayCluster", {"metadata": {"namespace": self.key.namespace, "name": state.name, "uid": state.uid}})


@pytest.fixture(scope="module")
def ready(api_server: None) -> None:
    api = KubeApi.connect()
    try:
        api.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd())
    except ApiError as error:
        assert error.reason == "AlreadyExists", error
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        try:
            for kind in (names.KIND, "RayCluster"):
                api.get(WATCHED[kind].format("default"))
        except ApiError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError("the API server does not serve both kinds")


def outcome(life: Life, document: dict[str, Any]) -> dict[str, Any]:
    """What must be the same whenever the operator died."""
    status = document["status"]
    conditions = {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}
    made = {f"{kind} {name}": len(uids) for (kind, name), uids in life.hand.seen.items()}
    kept = {k: status.get(k) for k in ("phase", "attempt", "restartsUsed")}
    failures = [(f["attempt"], f["reason"]) for f in status.get("failures", ())]
    return {**kept, "failures": failures, "training": status["training"]["summary"], "conditions": conditions, "made": made}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", LIVES)
def test_dying_at_any_write_changes_nothing(ready: None, kind: str) -> None:
    calm = Life(0, False, kind)
    want = outcome(calm, calm.run())
    calm.close()
    assert want["phase"] == "Succeeded"
    assert set(want["made"].values()) == {1}
    assert (want["attempt"], len(want["failures"])) == ((3, 1) if kind == "eventful" else (1, 0))
    writes = calm.api.writes
    assert writes >= 20

    def live(case: tuple[int, bool]) -> tuple[tuple[int, bool], dict[str, Any], int]:
        life = Life(*case, kind)
        try:
            return case, outcome(life, life.run()), life.crashes
        finally:
            life.close()

    cases = [(n, after) for n in range(1, writes + 1) for after in (False, True)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for case, got, crashes in pool.map(live, cases):
            # Timing may save a write (a look that came later found more done), then the last n are never reached.
            assert crashes == 1 or case[0] > writes - (4 if kind == "calm" else 12), case
            assert got == want, case
