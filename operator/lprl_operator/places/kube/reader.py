"""Reads that no watch does: the live read behind every consequential decision, and the slow look at what is not watched.

Worker pods are not watched (a 32-node job would bring 32 of them, a thousand jobs far too many): RayCluster status counts them.
While a cluster is not ready, or an old attempt's pods linger, they are listed every few seconds instead, with KubeRay's refusals
(it writes an event and nothing else) and the nodes of pods that look lost.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from lprl_api import names
from lprl_api.names import ExitCode
from lprl_operator.decide.observed import ClusterState, Key, ObjectRef, Observed, PodState, Refusal
from lprl_operator.kube import paths
from lprl_operator.kube.api import ApiError, KubeApi, Unavailable
from lprl_operator.places.kube import reduce
from lprl_operator.places.kube.cache import Cache, Details
from lprl_operator.places.kube.pools import Pools
from lprl_operator.places.kube.shelf import Name
from lprl_operator.resources import naming

RAYCLUSTER = "RayCluster"
PATIENCE_S = 15.0
"""Most clusters are ready sooner; until then nothing is listed."""
LOOK_S = 15.0
"""Between two looks at a cluster that is not ready."""
LINGER_LOOK_S = 3.0
"""Between two looks at pods an attempt left behind: the next one waits for them."""
REFUSED = "InvalidRayClusterSpec"
Document = dict[str, Any]


class Reader:
    """Reads of jobs and their children. Thread-safe."""

    def __init__(self, api: KubeApi, cache: Cache) -> None:
        self._api, self._cache, self.pools = api, cache, Pools(api, cache)
        self._lock = threading.Lock()
        self._missing: set[str] = set()
        self._refused: dict[Key, dict[str, str]] = {}
        """Message of KubeRay's refusal, by job and RayCluster uid."""
        self._node_lost: dict[str, datetime] = {}
        """Since when a node is unreachable, by name; a node that is gone counts from when we noticed."""
        self._on_lost: dict[str, set[Key]] = {}
        """Jobs with pods on such a node: without one nobody would look whether it is back."""

    def job(self, key: Key) -> Document | None:
        """Read the job itself; None when it is gone."""
        path = paths.collection(names.API_VERSION, names.KIND, key.namespace)
        try:
            # A list of one is as fresh as a get and costs the API server half: it is answered from memory, the get from etcd.
            found: list[Document] = self._api.get(path, fieldSelector=f"metadata.name={key.name}").get("items") or []
        except Unavailable:
            raise
        except ApiError as error:
            if error.status == 404:  # the kind is not served, which says nothing of the job
                raise Unavailable(error.status, error.reason, error.message) from error
            raise
        if not found:
            return None
        self._cache.put(names.KIND, found[0])
        return found[0]

    def children(self, key: Key, document: Mapping[str, Any], now: datetime) -> None:
        """Read the RayClusters, pods and progress of a job into the cache."""
        clusters = self._list("ray.io/v1", RAYCLUSTER, key, f"{names.LABEL_JOB}={key.name}")
        attempt = (document.get("status") or {}).get("attempt") or 0
        # Before the first attempt nothing can have been left behind.
        pods = self._list("v1", "Pod", key, f"{names.LABEL_JOB}={key.name},{reduce.HEAD_TYPE}") if attempt or clusters else []
        states = tuple(p for d in pods if (p := reduce.pod_state(d)) is not None)
        self._look_at_nodes(key, states, now)
        self._cache.replace_live(key, clusters, pods, Details(states, now))
        clusters_now = self._cache.clusters(key)
        with self._lock:
            told = self._refused.get(key, {})
            for uid in told.keys() - {c.uid for c in clusters_now}:
                del told[uid]
        for cluster in clusters_now:
            if not cluster.settled and (now - cluster.created_at).total_seconds() >= self._cache.paced(PATIENCE_S):
                self._look_for_refusal(key, cluster)
        if isinstance(attempt, int) and attempt > 0:
            self._progress(key, attempt)
        for job in self._cache.jobs_of(key):
            reports = job.name == naming.inspect_job(key.name) or naming.is_finalise_job(job.name)
            reported = not reports or any(e.exit_code == ExitCode.OK for e in job.exits)
            if job.finished == "Failed" or (job.finished == "Complete" and not reported):
                # Two watches: a Job's end may be heard of before its last pod's, which carries the report or the reason.
                for pod in self._list("v1", "Pod", key, f"{reduce.JOB_NAME}={job.name}"):
                    self._cache.put("Pod", pod)

    def is_due(self, key: Key, now: datetime) -> bool:
        """Whether `children` would tell more than the watches do."""
        clusters, details = self._cache.clusters(key), self._cache.details(key)
        age = (now - details.at).total_seconds() if details is not None else None
        lingering = details is not None and any(p.attempt not in {c.attempt for c in clusters} for p in details.pods)
        emptying = [
            c for c in clusters if c.suspended and (details is None or any(p.alive and p.cluster_uid == c.uid for p in details.pods))
        ]
        if details is not None and any(c.emptied for c in emptying):
            return True  # the list is older than what KubeRay says
        if lingering or emptying or any(c.deleting for c in clusters):
            return age is None or age >= LINGER_LOOK_S
        if self._missing:
            return age is None or age >= LOOK_S
        ill = [c for c in clusters if not c.settled and (now - c.created_at).total_seconds() >= self._cache.paced(PATIENCE_S)]
        suspects = any(_is_suspect(p) for p in self._cache.heads(key))
        return bool(ill or suspects) and (age is None or age >= self._cache.paced(LOOK_S))

    def completed(self, key: Key, seen: Observed, refusals: tuple[Refusal, ...]) -> Observed:
        """Add to a snapshot what is known beside the caches."""
        with self._lock:
            missing, refused, lost = frozenset(self._missing), dict(self._refused.get(key, {})), dict(self._node_lost)
        clusters = tuple(replace(c, refused=refused[c.uid]) if c.uid in refused else c for c in seen.clusters)
        pods = tuple(replace(p, unreachable_since=lost[p.node]) if p.node in lost else p for p in seen.pods)
        return replace(seen, clusters=clusters, pods=pods, missing_kinds=missing, refusals=refusals, pools=self.pools.of(key))

    def kind_is_missing(self, kind: str) -> None:
        """Note that the API server does not serve a kind; the next successful list takes it back. Others are listed by nobody."""
        if kind == RAYCLUSTER:
            with self._lock:
                self._missing.add(kind)

    def forget(self, key: Key) -> None:
        """Drop what is known of a job's clusters and pools."""
        self.pools.forget(key)
        with self._lock:
            self._refused.pop(key, None)
            self._leave_nodes(key, set())

    def _list(self, api_version: str, kind: str, key: Key, selector: str) -> list[Document]:
        try:
            found = self._api.get(paths.collection(api_version, kind, key.namespace), labelSelector=selector)
        except Unavailable:
            raise
        except ApiError as error:
            if error.status == 404:
                self.kind_is_missing(kind)
                return []
            raise
        with self._lock:
            self._missing.discard(kind)
        return list(found.get("items") or ())

    def _progress(self, key: Key, attempt: int) -> None:
        ref = ObjectRef("v1", "ConfigMap", key.namespace, naming.progress(key.name, attempt))
        known = self._cache.progress_uid(Name(key.namespace, ref.name))  # before it is read: not of one that came meanwhile
        try:
            self._cache.put("ConfigMap", self._api.get(paths.item(ref)))
        except Unavailable:
            raise
        except ApiError as error:
            if error.status != 404:
                raise
            if known is not None:
                gone = {"namespace": key.namespace, "name": ref.name, "uid": known}
                self._cache.remove("ConfigMap", {"metadata": gone})

    def _look_for_refusal(self, key: Key, cluster: ClusterState) -> None:
        fields = f"involvedObject.uid={cluster.uid},reason={REFUSED}"
        found = self._api.get(paths.collection("v1", "Event", key.namespace), fieldSelector=fields, limit="1")
        for event in found.get("items") or ():
            with self._lock:
                self._refused.setdefault(key, {})[cluster.uid] = str(event.get("message", ""))[: reduce.MAX_TEXT]

    def _look_at_nodes(self, key: Key, pods: Iterable[PodState], now: datetime) -> None:
        """Ask for the nodes of pods that look lost. Without the permission (one-namespace installs) nodes count as reachable."""
        pods = tuple(pods)
        with self._lock:
            self._leave_nodes(key, {p.node for p in pods})
        for node in sorted({p.node for p in pods if p.node and (_is_suspect(p) or p.node in self._node_lost)}):
            since, gone = self._lost_since(node, now)
            with self._lock:
                if since is None:
                    self._drop_node(node)
                    continue
                # An outage counts from its own beginning, whatever was before it; only a node that is gone says none.
                self._node_lost[node] = self._node_lost.get(node, since) if gone else since
                self._on_lost.setdefault(node, set()).add(key)

    def _leave_nodes(self, key: Key, named: set[str]) -> None:
        """Drop a job from lost nodes that none of its pods is on any more."""
        for node in [node for node, jobs in self._on_lost.items() if key in jobs and node not in named]:
            self._on_lost[node].discard(key)
            if not self._on_lost[node]:
                self._drop_node(node)

    def _drop_node(self, node: str) -> None:
        self._node_lost.pop(node, None)
        self._on_lost.pop(node, None)

    def _lost_since(self, node: str, now: datetime) -> tuple[datetime | None, bool]:
        """Return since when a node is lost, None if it is not, and whether there is no such node."""
        try:
            found = self._api.get(f"/api/v1/nodes/{node}")
        except Unavailable:
            raise
        except ApiError as error:
            return (now, True) if error.status == 404 else (None, False)
        ready = reduce.conditions(found).get("Ready", {})
        return reduce.time_of(ready.get("lastTransitionTime")) if ready.get("status") == "Unknown" else None, False


def _is_suspect(pod: PodState) -> bool:
    """Whether a pod looks as if its node went away: it does not go, or it ran and is not ready. Pulling an image may take its time."""
    return bool(pod.node) and pod.alive and (pod.deleting or (pod.phase != "Pending" and not pod.ready))
