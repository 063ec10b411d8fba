"""An in-memory world that plays Job controller, KubeRay, kubelets and pods beside the API server."""

import json
from datetime import timedelta
from typing import Any

from tests.unit.lprl_operator.world_api import INSPECTION, SETTINGS, SHAPE, START, ApiServer, Crash, changed, manifest

from lprl_api.names import CONTROL_KEY, ExitCode
from lprl_operator.decide.observed import (
    ClusterState,
    ContainerState,
    Exit,
    JobState,
    PodState,
)

__all__ = ["INSPECTION", "SETTINGS", "SHAPE", "START", "Crash", "World", "manifest"]


class World(ApiServer):
    """A cluster; `tick` is time passing."""

    # Time passing

    def tick(self, seconds: float = 10.0) -> None:
        """Everybody but the operator gets on by one step."""
        self.now += timedelta(seconds=seconds)
        there = {j.uid for j in self.jobs.values()}
        self.jobs = {n: j for n, j in self.jobs.items() if not j.owner_job or j.owner_uids & there}  # garbage collection
        for job in list(self.jobs.values()):
            self._run_job(job)
        for cluster in list(self.clusters.values()):
            self._run_cluster(cluster)
        self._collect_pods()
        self._collect_garbage()
        self._collect_clusters()

    def _run_job(self, job: JobState) -> None:
        if job.finished or self.random.random() < 0.4:
            return
        message = self.finalised if job.name.startswith("lprl-finalise") else ""
        if job.name.endswith("-inspect"):
            message = INSPECTION.model_dump_json(by_alias=True)
        missing = [i for i in range(job.completions) if i not in job.completed]
        completed = job.completed | {missing[0]} if missing else job.completed
        done = len(completed) == job.completions
        exits = (Exit(0, 0, "Completed", message),) if done and message else job.exits
        self.change_job(job.name, completed=completed, finished="Complete" if done else "", exits=exits)

    def _run_cluster(self, cluster: ClusterState) -> None:
        mine = [p for p in self.pods if p.cluster_uid == cluster.uid]
        if cluster.deleting:
            for pod in mine:
                self.change_pod(pod.name, deleting=True)
            if self.random.random() < 0.5:
                del self.clusters[cluster.name]
            return
        if cluster.suspended:
            self._suspend_cluster(cluster, mine)
            return
        head = next((p for p in mine if p.role == "head"), None)
        if head is None:
            if not cluster.provisioned:
                self._start_pod(cluster, "head", 0)
            return
        workers = [p for p in mine if p.role == "worker"]
        if len(workers) < cluster.wanted_workers:
            self._start_pod(cluster, "worker", len(workers))
        ready = len(workers) >= cluster.wanted_workers
        alive = head.alive and head.driver is not None and head.driver.state == "running"
        changes = {"head_ready": alive, "ready_workers": len(workers), "provisioned": cluster.provisioned or (ready and alive)}
        self.change_cluster(cluster.name, **changes)
        if ready and alive and head.unreachable_since is None:
            self._run_driver(cluster, head)

    def _suspend_cluster(self, cluster: ClusterState, mine: list[PodState]) -> None:
        """KubeRay finishes every suspension, then waits to be let go; queues let go of what nobody else holds."""
        for pod in mine:
            self.change_pod(pod.name, deleting=True)
        if not mine:
            self.change_cluster(cluster.name, emptied=True, provisioned=False, head_ready=False, ready_workers=0)
        if cluster.queued and self.full:
            return
        if cluster.told_to_suspend and not cluster.held and (cluster.queued or self.random.random() < 0.3):
            self.change_cluster(cluster.name, told_to_suspend=False)
        elif cluster.emptied and not cluster.told_to_suspend:
            self.change_cluster(cluster.name, suspended=False, emptied=False)

    def evict(self, cluster: ClusterState) -> None:
        """A queue suspends a cluster, and puts its pod templates back as they were when it was made."""
        made_for = int(cluster.name.rsplit("-a", 1)[1])
        self.change_cluster(cluster.name, suspended=True, told_to_suspend=True, template_attempt=made_for)

    def _start_pod(self, cluster: ClusterState, role: Any, number: int) -> None:
        attempt = cluster.template_attempt
        assert self.ran.setdefault((cluster.owner_uids, attempt), cluster.uid) == cluster.uid, (
            f"attempt {attempt} ran in another RayCluster"
        )
        for pod in self.pods:
            gone = pod.unreachable_since is not None and (self.now - pod.unreachable_since).total_seconds() >= 600
            assert pod.attempt == attempt or gone or not pod.alive, f"{pod.name} is alive while a {role} of attempt {attempt} starts"
        running = ContainerState("running")
        driver = running if role == "head" else None
        name = f"{cluster.name}-{role}-{number}-{self._uid()}"
        where = {"node": f"n{number}", "cluster_uid": cluster.uid}
        self.pods.append(PodState(name, self._uid(), attempt, role, "Running", True, ray=running, driver=driver, **where))

    def _run_driver(self, cluster: ClusterState, head: PodState) -> None:
        assert self.document is not None
        name = f"{self.document['metadata']['name']}-a{head.attempt}-progress"
        if head.attempt < self.fence:
            self.exit_driver(head, ExitCode.FENCED, json.dumps({"reason": "Fenced", "message": "late", "ownerAttempt": self.fence}))
            return
        self.fence = head.attempt
        if name not in self.config_maps:
            return  # garbage collection took it: the driver of a deleted job can report no more
        control = json.loads(self.config_maps[name][CONTROL_KEY])
        step = min(self.steps.get(0, 0) + 3, control["steps"])
        fate = self.random.random() if self.chaos else 1.0
        if control["suspend"]:
            self.exit_driver(head, ExitCode.SUSPENDED)
        elif self.steps.get(0, 0) >= control["steps"]:
            self.completed = True
            self.exit_driver(head, ExitCode.OK)
        elif fate < 0.04:
            self.exit_driver(head, self.random.choice([ExitCode.CRASH, ExitCode.TRAINER_LOST, 137]))
        elif fate < 0.06:
            self.pods = [p for p in self.pods if p.name != head.name]
        elif fate < 0.08:
            for pod in [p for p in self.pods if p.cluster_uid == cluster.uid]:
                self.change_pod(pod.name, unreachable_since=self.now)
        elif fate < 0.10:
            self.evict(cluster)
        elif fate < 0.12:
            self.change_cluster(cluster.name, deleting=True)
        elif fate < 0.15:
            pass  # says nothing for a while
        else:
            self.steps[0] = step
            self.report(head.attempt, step)

    def report(self, attempt: int, step: int, **more: Any) -> None:
        """The driver patches its progress."""
        self.sequence += 1
        steps = self.document["spec"]["algorithm"]["steps"] if self.document else 0
        text = {"attempt": attempt, "sequence": self.sequence, "phase": "training", "step": step, "steps": steps, "reward": 0.5, **more}
        assert self.document is not None
        self.config_maps[f"{self.document['metadata']['name']}-a{attempt}-progress"]["progress.json"] = json.dumps(text)

    def exit_driver(self, head: PodState, code: int, message: str = "", reason: str = "Error") -> None:
        self.change_pod(head.name, driver=ContainerState("terminated", reason, message, code), ready=False)
        self.change_cluster(next(c.name for c in self.clusters.values() if c.uid == head.cluster_uid), head_ready=False)

    def _collect_garbage(self) -> None:
        uid = self.document["metadata"]["uid"] if self.document else ""
        for name in [n for n, owner in self.controllers.items() if owner != uid and n in self.config_maps]:
            if self.random.random() < 0.5:
                del self.config_maps[name]

    def _collect_clusters(self) -> None:
        """Garbage collection deletes the RayClusters and inspect Jobs of owners that are gone, not those that nobody owns."""
        uid = self.document["metadata"]["uid"] if self.document else ""
        for cluster in self.clusters.values():
            if cluster.owner_uids and uid not in cluster.owner_uids and not cluster.deleting:
                self.change_cluster(cluster.name, deleting=True)
        for job in [j for n, j in self.jobs.items() if n.endswith("-inspect") and j.owner_uids and uid not in j.owner_uids]:
            del self.jobs[job.name]

    def _collect_pods(self) -> None:
        """Deleted pods go away when their kubelet answers; those of a dead node stay until somebody removes the node."""
        kept = []
        for pod in self.pods:
            dead = pod.unreachable_since is not None and self.random.random() < 0.97
            orphan = not any(c.uid == pod.cluster_uid for c in self.clusters.values())
            if (pod.deleting or orphan) and not dead and self.random.random() < 0.5:
                continue
            kept.append(changed(pod, deleting=True) if orphan else pod)
        self.pods = kept
