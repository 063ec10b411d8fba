"""A team's queue in Kueue, and what happens in it: what an administrator and other users do beside lprl."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tests.control_plane.harness.api import PLURALS, ApiError, Document
from tests.control_plane.harness.manifests import annotations, inspection, toy
from tests.control_plane.harness.plane import POOL
from tests.control_plane.harness.world import World
from tests.toy import SHAPE

KUEUE = "kueue.x-k8s.io"
V1 = f"{KUEUE}/v1beta2"
CLUSTER_WIDE = {"ClusterQueue": "clusterqueues", "ResourceFlavor": "resourceflavors", "WorkloadPriorityClass": "workloadpriorityclasses"}
CLUSTER_WIDE["Topology"] = "topologies"
PLURALS.update({kind: f"/apis/{V1}/{{}}{plural}" for kind, plural in CLUSTER_WIDE.items()})
PLURALS.update({"Workload": f"/apis/{V1}/{{}}workloads", "LocalQueue": f"/apis/{V1}/{{}}localqueues"})
QUEUE, PRIORITY, TIME_LIMIT = f"{KUEUE}/queue-name", f"{KUEUE}/priority-class", f"{KUEUE}/max-exec-time-seconds"
ONE = "5"
"""CPUs that a small job trains with (3), and one inspection or conversion pod besides."""
FULL = "3"
"""CPUs of one training and nothing else."""
PRIORITIES = {"low": 10, "high": 1000}


def quota(flavor: str, cpu: str, memory: str, gpu: str = "0") -> list[Document]:
    """Resource groups of a ClusterQueue."""
    amounts = {"cpu": cpu, "memory": memory, "nvidia.com/gpu": gpu}
    resources = [{"name": kind, "nominalQuota": amount} for kind, amount in amounts.items()]
    return [{"coveredResources": list(amounts), "flavors": [{"name": flavor, "resources": resources}]}]


def admitted(workload: Document | None) -> bool:
    """Whether a Workload has its quota now."""
    conditions = ((workload or {}).get("status") or {}).get("conditions", ())
    return any(c["type"] == "Admitted" and c["status"] == "True" for c in conditions)


class Team:
    """One namespace with a ClusterQueue of its own, which the LocalQueue `team` leads to."""

    def __init__(self, world: World, cpu: str = "64", memory: str = "512Gi", gpu: str = "0", queue: str = "team", flavor: str = "") -> None:
        self.world, self.api, self.queue = world, world.api, f"cq-{world.namespace}"
        for name, value in PRIORITIES.items():
            self._ensure({"apiVersion": V1, "kind": "WorkloadPriorityClass", "metadata": {"name": name}, "value": value})
        if not flavor:
            flavor = f"f-{world.namespace}"
            self._ensure(
                {"apiVersion": V1, "kind": "ResourceFlavor", "metadata": {"name": flavor}, "spec": {"nodeLabels": {POOL: world.namespace}}}
            )
        self.cluster_queue(self.queue, flavor, cpu=cpu, memory=memory, gpu=gpu)
        self.local_queue(queue, self.queue)

    def cluster_queue(self, name: str, flavor: str, cpu: str = "64", memory: str = "512Gi", gpu: str = "0", **spec: Any) -> None:
        """Add a ClusterQueue in which higher priorities preempt."""
        groups = quota(flavor, cpu, memory, gpu)
        whole = {"namespaceSelector": {}, "preemption": {"withinClusterQueue": "LowerPriority"}, "resourceGroups": groups, **spec}
        self._ensure({"apiVersion": V1, "kind": "ClusterQueue", "metadata": {"name": name}, "spec": whole})

    def resize(self, name: str, flavor: str, cpu: str, memory: str) -> None:
        """Give a ClusterQueue another quota."""
        self.api.patch("ClusterQueue", None, name, {"spec": {"resourceGroups": quota(flavor, cpu, memory)}})

    def local_queue(self, name: str, cluster_queue: str) -> None:
        """Add a queue to the namespace."""
        document = {"apiVersion": V1, "kind": "LocalQueue", "metadata": {"name": name}, "spec": {"clusterQueue": cluster_queue}}
        self._ensure(document, self.world.namespace)

    def stop(self, policy: str) -> None:
        """Stop the ClusterQueue, or let it go on (`None`)."""
        self.api.patch("ClusterQueue", None, self.queue, {"spec": {"stopPolicy": policy}})

    def activate(self, workload: str, value: bool) -> None:
        """Stop a Workload, or let it queue again."""
        self.api.patch("Workload", self.world.namespace, workload, {"spec": {"active": value}})

    def submit(
        self,
        name: str,
        driver: Mapping[str, Any] | None = None,
        priority: str = "",
        queue: str | None = "team",
        steps: int = 4,
        **more: Any,
    ) -> None:
        """Submit a small job that waits in a queue. `labels`, `notes`: more labels, annotations; else of its spec."""
        labels = {**({QUEUE: queue} if queue else {}), **({PRIORITY: priority} if priority else {}), **more.pop("labels", {})}
        notes = more.pop("notes", {})
        sim = annotations(inspection(SHAPE, more.pop("source", "ab" * 32)), {"step_s": 0.2, **(driver or {})}, **more.pop("pods", {}))
        manifest = toy(name, self.world.namespace, steps=steps, sim=sim, **more)
        manifest["metadata"] |= {"labels": labels, "annotations": notes}
        self.world.apply(manifest)

    def workloads(self) -> list[Document]:
        """All of the namespace."""
        return self.api.list("Workload", self.world.namespace)

    def workload(self, job: str) -> Document:
        """The one of a job's RayCluster."""
        found = self._find(job)
        assert found is not None, f"{job} has no Workload"
        return found

    def uid(self, job: str) -> str:
        """That one's uid; empty while there is none."""
        return str((self._find(job) or {"metadata": {"uid": ""}})["metadata"]["uid"])

    def _find(self, job: str) -> Document | None:
        name = self.world.status(job).get("cluster")
        cluster = self.api.find("RayCluster", self.world.namespace, name) if name else None
        uid = cluster["metadata"]["uid"] if cluster is not None else ""
        return next((w for w in self.workloads() if any(o["uid"] == uid for o in w["metadata"].get("ownerReferences", ()))), None)

    def is_admitted(self, job: str) -> bool:
        """Whether a job's RayCluster has its quota now."""
        return admitted(self.workload(job))

    def another_second(self) -> None:
        """Wait until what is queued next is younger than all that queues: Kueue's order goes by whole seconds."""

        def passed() -> bool:
            made = [datetime.fromisoformat(w["metadata"]["creationTimestamp"]) for w in self.workloads()]
            return not made or (datetime.now(UTC) - max(made)).total_seconds() >= 1

        self.world.wait("another second", passed)

    def conversion(self) -> Document:
        """The Workload of the one conversion of the namespace."""
        (found,) = (w for w in self.workloads() if w["metadata"]["ownerReferences"][0]["name"].startswith("lprl-convert"))
        return found

    def says(self, job: str, *words: str) -> None:
        """Wait until a job's message has all these words."""
        self.world.wait(f"{job} says {words}", lambda: all(w in self.world.status(job).get("message", "") for w in words))

    def held(self, job: str, *words: str) -> None:
        """Wait until a job's RayCluster is said to be held by its queue, with these words."""
        self.world.wait_reason(job, "ClusterReady", "Queued")
        self.says(job, *words)

    def order(self) -> list[tuple[str, int]]:
        """Jobs and attempts in the order in which their drivers began to train."""
        return [(e["job"], e["attempt"]) for e in self.world.driver_log(event="start")]

    def finish(self, job: str) -> Document:
        """Let a job's driver go on to its end; of whichever attempt it is."""

        def ended() -> bool:
            self.world.script(job, step_s=0.05)
            return bool(self.world.status(job)["phase"] in ("Succeeded", "Failed"))

        self.world.wait(f"{job} ends", ended, poll_s=1.0)
        return self.world.wait_phase(job, "Succeeded")

    def uncharged(self, job: str, attempt: int, *reasons: str) -> None:
        """A job is at this attempt, nothing was charged, and earlier ones ended for these reasons."""
        found = self.world.status(job)
        told = [f["reason"] for f in found.get("failures", ())]
        assert (found["attempt"], found.get("restartsUsed", 0), told) == (attempt, 0, list(reasons)), found

    def _ensure(self, document: Document, namespace: str | None = None) -> None:
        def made() -> bool:
            try:
                self.api.ensure(document, namespace)
            except ApiError as error:
                if error.status in (403, 500) and "webhook" in error.message:
                    return False  # Kueue's webhooks are not up yet
                raise
            return True

        self.world.wait(f"{document['kind']} {document['metadata']['name']}", made)
