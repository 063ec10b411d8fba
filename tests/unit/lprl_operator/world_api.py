"""A small job, its inspection, and an API server in memory: the place that tests of the operator act on."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tests.toy import SHAPE
from tests.unit.lprl_operator.documents import copied
from tests.unit.lprl_operator.status_schema import refused
from tests.unit.lprl_operator.world_clusters import RayClusters, made_from, queue

from lprl_api.model.model_shape import Inspection
from lprl_api.names import CONTROL_KEY, LABEL_CONTENT_KEY, LABEL_PRIORITY, LABEL_QUEUE
from lprl_operator.decide.actions import Action, AddOwner, Apply, Create, Delete, DeleteOwned, Event, HandOver, Raise, Relabel, RemoveOwner
from lprl_operator.decide.observed import (
    ClusterState,
    JobState,
    Key,
    ObjectRef,
    Observed,
    PodState,
    Refusal,
)
from lprl_operator.places.cluster import Conflict
from lprl_operator.resources.settings import RenderSettings

START = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = RenderSettings(image="lprl.test/workload:1")
INSPECTION = Inspection(shape=SHAPE, fingerprint="ab" * 32, total_bytes=1_000_000, tensors=24, shards=6)


def manifest(name: str = "toy", uid: str = "uid-1", **spec: Any) -> dict[str, Any]:
    """A valid document; keyword arguments replace top-level parts of the spec."""
    claims = {n: {"persistentVolumeClaim": n} for n in ("models", "data", "checkpoints")}
    base: dict[str, Any] = {
        "model": {"source": {"volume": "models", "path": "toy"}},
        "precision": {"training": "int4-qat", "rollout": "int4", "int4": {"groupSize": 32}},
        "conversion": {"volume": "models", "parallelism": 2},
        "data": {"prompts": {"volume": "data", "path": "train.jsonl"}, "reward": {"type": "exact"}},
        "algorithm": {"steps": 40, "rolloutBatchSize": 4, "samplesPerPrompt": 4},
        "sampling": {"maxResponseTokens": 4},
        "topology": {"accelerator": "cpu", "nodes": 2},
        "checkpoint": {"volume": "checkpoints"},
        "volumes": claims,
    }
    meta = {"name": name, "namespace": "rl", "uid": uid, "generation": 1, "resourceVersion": "1"}
    return {"apiVersion": "lprl.dev/v1alpha1", "kind": "LowPrecisionRLJob", "metadata": meta, "spec": {**base, **spec}}


class Crash(Exception):
    """The operator died here."""


class ApiServer(RayClusters):
    """What there is, with a seeded fate. The Protocol is `observe`, `live_read`, `publish`, `apply`."""

    def __init__(self, document: dict[str, Any], seed: int = 0, chaos: bool = False) -> None:
        self.random = random.Random(seed)
        self.document: dict[str, Any] | None = document
        self.chaos = chaos
        self.crashes = chaos
        self.blind = chaos
        self.now = START
        self.jobs: dict[str, JobState] = {}
        self.clusters: dict[str, ClusterState] = {}
        self.pods: list[PodState] = []
        self.config_maps: dict[str, dict[str, str]] = {}
        self.controllers: dict[str, str] = {}
        self.left_over: dict[str, Refusal] = {}
        self.steps: dict[int, int] = {}
        self.sequence = 0
        self.fence = 0
        """Newest attempt whose driver opened the checkpoint folder."""
        self.events: list[Event] = []
        self.writes = 0
        self.created_attempts: list[int] = []
        self.ran: dict[tuple[frozenset[str], int], str] = {}
        """Uid of the RayCluster that pods were made in, by owner and attempt."""
        self.completed = False
        self.refuse: Refusal | None = None
        self.missing: frozenset[str] = frozenset()
        self.departed: dict[str, PodState] = {}
        self.finalised = ""
        """What finalise Jobs say when they end."""
        self._stale: Observed | None = None
        self._stale_document: dict[str, Any] | None = None

    # The Protocol

    def observe(self, key: Key) -> Observed:
        if self.chaos and self._stale is not None and self.random.random() < 0.4:
            return self._stale
        live = self.snapshot()
        # Worker pods are not watched: a cache need not have them.
        self._stale = replace(live, pods=tuple(p for p in live.pods if p.role == "head")) if self.blind else live
        return self._stale

    def cached_document(self) -> dict[str, Any]:
        assert self.document is not None
        if self.chaos and self._stale_document is not None and self.random.random() < 0.3:
            return copied(self._stale_document)
        self._stale_document = copied(self.document)
        return copied(self.document)

    def live_read(self, key: Key) -> tuple[Mapping[str, Any] | None, Observed]:
        return copied(self.document), self.snapshot()

    def publish(self, key: Key, status: Mapping[str, Any], resource_version: str | None, events: Sequence[Event]) -> None:
        self._maybe_crash()
        assert self.document is not None
        if self.document["metadata"]["resourceVersion"] != resource_version:
            raise Conflict("stale")
        assert not (wrong := refused(status)), wrong
        before = self.document.get("status", {})
        assert status.get("attempt", 0) >= before.get("attempt", 0), "attempts are monotone"
        if before.get("completionTime"):
            assert status.get("completionTime") == before["completionTime"], "an end is an end"
            assert status["phase"] == before["phase"]
        self.document["status"] = json.loads(json.dumps(status))
        self.document["metadata"]["resourceVersion"] = str(int(resource_version) + 1)
        self.writes += 1
        self.events += events
        self._maybe_crash()

    def apply(self, actions: Sequence[Action]) -> None:
        for action in actions:
            self._maybe_crash()
            if isinstance(action, Create):
                if self._create(dict(action.document)):
                    return
            elif isinstance(action, Apply):
                name = action.document["metadata"]["name"]
                if name in self.config_maps:
                    self.config_maps[name] |= action.document["data"]
                    self.writes += 1
            elif isinstance(action, Raise):
                self._raise(action)
            elif isinstance(action, Relabel):
                self._relabel(action)
            elif isinstance(action, HandOver):
                self._hand_over(action)
            elif isinstance(action, Delete):
                self._delete(action)
            elif isinstance(action, DeleteOwned):
                if action.ref.kind == "ConfigMap" and self.controllers.get(action.ref.name) == action.owner_uid:
                    self.writes += self.config_maps.pop(action.ref.name, None) is not None
            else:
                self._owners(action)

    def _maybe_crash(self) -> None:
        if self.crashes and self.random.random() < 0.05:
            raise Crash

    # The API server

    def snapshot(self) -> Observed:
        assert self.document is not None
        name = self.document["metadata"]["name"]
        jobs = dict(self.jobs)
        inspect = jobs.pop(f"{name}-inspect", None)
        mine = self.document["metadata"]["uid"]
        maps = sorted(
            (m for m in self.config_maps if m.endswith("-progress") and self.controllers[m] == mine),
            key=lambda m: int(m.split("-")[-2][1:]),
        )
        newest = self.config_maps[maps[-1]] if maps else {}
        refusals = (*(() if self.refuse is None else (self.refuse,)), *self.left_over.values())
        return Observed(
            inspect,
            jobs,
            tuple(self.clusters.values()),
            tuple(self.pods),
            newest.get("progress.json"),
            newest.get(CONTROL_KEY),
            self.missing,
            refusals,
            int(maps[-1].split("-")[-2][1:]) if maps else None,
            departed=dict(self.departed),
        )

    def _create(self, document: dict[str, Any]) -> bool:
        """Create; True when it was refused."""
        kind, meta = document["kind"], document["metadata"]
        owners = frozenset(o["uid"] for o in meta["ownerReferences"])
        if self.refuse is not None and (self.refuse.ref.kind, self.refuse.ref.name) == (kind, meta["name"]):
            return True
        if kind == "Job" and meta["name"] not in self.jobs:
            completions = document["spec"].get("completions", 1)
            owner_job = next((o["name"] for o in meta["ownerReferences"] if o["kind"] == "Job"), "")
            self.jobs[meta["name"]] = JobState(
                meta["name"], self._uid(), "1", owners, completions, owner_job=owner_job, made_from=made_from(document), **queue(meta)
            )
            assert meta["name"].endswith("-inspect") or LABEL_CONTENT_KEY in meta["labels"]
        elif kind == "RayCluster" and meta["name"] not in self.clusters:
            self._create_cluster(document, owners)
        elif kind == "ConfigMap" and meta["name"] not in self.config_maps:
            self.config_maps[meta["name"]] = dict(document["data"])
            controllers = [o["uid"] for o in meta["ownerReferences"] if o.get("controller")]
            if controllers:
                self.controllers[meta["name"]] = controllers[0]
        elif kind == "ConfigMap" and self.controllers.get(meta["name"]) not in (None, *owners):
            ref = ObjectRef("v1", kind, meta["namespace"], meta["name"])
            self.left_over[meta["name"]] = Refusal(ref, "belongs to a deleted job of this name", False)
            return True
        else:
            return False
        self.left_over.pop(meta["name"], None)
        self.writes += 1
        return False

    def _delete(self, action: Delete) -> None:
        ref = action.ref
        if ref.kind == "LowPrecisionRLJob":
            self.document = None
            self.writes += 1
        elif ref.kind == "Job" and ref.name in self.jobs:
            job = self.jobs[ref.name]
            if action.uid not in (None, job.uid) or action.resource_version not in (None, job.resource_version):
                raise Conflict(str(ref))
            del self.jobs[ref.name]
            self.writes += 1
        elif ref.kind == "RayCluster" and ref.name in self.clusters:
            cluster = self.clusters[ref.name]
            if action.uid not in (None, cluster.uid) or action.resource_version not in (None, cluster.resource_version):
                raise Conflict(str(ref))
            self.change_cluster(ref.name, deleting=True)
            self.writes += 1

    def _owners(self, action: AddOwner | RemoveOwner) -> None:
        job = self.jobs.get(action.ref.name)
        if job is None:
            raise Conflict(str(action.ref))
        if isinstance(action, AddOwner):
            owners = job.owner_uids | {action.owner["uid"]}
        else:
            if action.resource_version != job.resource_version:
                raise Conflict(str(action.ref))
            owners = job.owner_uids - {action.owner_uid}
        self.change_job(job.name, owner_uids=owners)
        self.writes += 1

    def _raise(self, action: Raise) -> None:
        job = self.jobs.get(action.ref.name)
        if job is None or (job.uid, job.resource_version) != (action.uid, action.resource_version):
            raise Conflict(str(action.ref))
        self.change_job(job.name, priority_class=action.priority_class)
        self.writes += 1

    def _relabel(self, action: Relabel) -> None:
        of_cluster = action.ref.kind == "RayCluster"
        found: Any = (self.clusters if of_cluster else self.jobs).get(action.ref.name)
        if found is None or (found.uid, found.resource_version) != (action.uid, action.resource_version):
            raise Conflict(str(action.ref))
        names = {LABEL_QUEUE: "queue_name", LABEL_PRIORITY: "priority_class"}
        held = found.told_to_suspend if of_cluster else found.suspended
        assert held or LABEL_QUEUE not in dict(action.labels), "Kueue refuses another queue for what it admitted"
        (self.change_cluster if of_cluster else self.change_job)(found.name, **{names[k]: v for k, v in action.labels})
        self.writes += 1

    # Changing the world

    def change_job(self, name: str, **changes: Any) -> None:
        old = self.jobs[name]
        self.jobs[name] = changed(old, resource_version=str(int(old.resource_version) + 1), **changes)

    def change_pod(self, name: str, **changes: Any) -> None:
        self.pods = [changed(p, **changes) if p.name == name else p for p in self.pods]

    def head(self) -> PodState | None:
        return next((p for p in self.pods if p.role == "head" and not p.deleting), None)


def changed(value: Any, **changes: Any) -> Any:
    return replace(value, **changes)
