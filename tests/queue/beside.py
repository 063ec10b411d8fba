"""A KubeRay RayJob in the same LocalQueue: who is admitted first, and who comes back first, is what Kueue does for either.

The RayJob of a simulated cluster is admitted and has pods, but never ends: it is deleted when it is another's turn.
"""

from tests.control_plane.harness.api import PLURALS, Document
from tests.control_plane.harness.plane import POOL
from tests.control_plane.harness.world import World
from tests.queue.team import ONE, PRIORITY, QUEUE, Team, admitted

PLURALS["RayJob"] = "/apis/ray.io/v1/{}rayjobs"
HOLDS = {"hold_at": 3}


class RayJob:
    """One that needs what the training of a small job needs: three CPUs."""

    def __init__(self, team: Team, name: str, priority: str = "") -> None:
        self.team, self.name = team, name
        labels = {QUEUE: "team", **({PRIORITY: priority} if priority else {})}
        head = {"rayStartParams": {}, "template": self._template("head", "1")}
        worker = {"groupName": "workers", "replicas": 1, "minReplicas": 1, "maxReplicas": 1, "rayStartParams": {}}
        cluster = {"headGroupSpec": head, "workerGroupSpecs": [{**worker, "template": self._template("worker", "2")}]}
        spec = {"entrypoint": "true", "submissionMode": "HTTPMode", "shutdownAfterJobFinishes": True, "suspend": True}
        meta = {"name": name, "namespace": team.world.namespace, "labels": labels}
        team.another_second()
        team.api.create({"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": meta, "spec": {**spec, "rayClusterSpec": cluster}})
        team.world.wait(f"the Workload of {name}", self.workload)

    def _template(self, name: str, cpu: str) -> Document:
        container = {"name": name, "image": "none", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}
        return {"spec": {"containers": [container], "nodeSelector": {POOL: self.team.world.namespace}}}

    def workload(self) -> Document | None:
        """The one that Kueue made for it."""
        return next((w for w in self.team.workloads() if w["metadata"]["ownerReferences"][0]["name"] == self.name), None)

    def is_admitted(self) -> bool:
        """Whether it has the quota now."""
        return admitted(self.workload())

    def wait_admitted(self) -> None:
        """Wait for its turn."""
        self.team.world.wait(f"{self.name} is admitted", self.is_admitted)

    def delete(self) -> None:
        """Give its quota back."""
        self.team.api.delete("RayJob", self.team.world.namespace, self.name)
        self.team.world.wait(f"{self.name} has no Workload any more", lambda: self.workload() is None)


def first_come(world: World) -> None:
    """Quota for one, and three wait: a RayJob, a job, a RayJob. Each is let in when the one before is gone."""
    team = Team(world, cpu=ONE)
    team.submit("owner", HOLDS)
    world.wait_phase("owner", "Running")
    first = RayJob(team, "first")
    team.submit("second", HOLDS)
    team.held("second", "Pending")
    third = RayJob(team, "third")
    team.finish("owner")
    first.wait_admitted()
    team.held("second", "Pending")
    assert not third.is_admitted() and team.order() == [("owner", 1)]
    first.delete()
    world.wait_phase("second", "Running")
    assert not third.is_admitted()
    team.finish("second")
    third.wait_admitted()
    team.uncharged("second", 1)
    third.delete()


def preempted(world: World) -> None:
    """A RayJob that is preempted is back before a job that queued later, as a job is before whatever queued later (quota.preempted)."""
    team = Team(world, cpu=ONE)
    first = RayJob(team, "first", priority="low")
    first.wait_admitted()
    team.submit("later", priority="low")
    team.held("later", "Pending")
    team.submit("urgent", HOLDS, priority="high")
    world.wait_phase("urgent", "Running")
    assert not first.is_admitted()
    team.finish("urgent")
    first.wait_admitted()
    team.held("later", "Pending")
    first.delete()
    world.wait_phase("later", "Succeeded")
    assert team.order() == [("urgent", 1), ("later", 1)]


def preempted_job(world: World) -> None:
    """The same with a job in the RayJob's place and a RayJob in the job's."""
    team = Team(world, cpu=ONE)
    team.submit("first", HOLDS, priority="low", steps=8)
    world.wait_phase("first", "Running")
    later = RayJob(team, "later", priority="low")
    team.submit("urgent", HOLDS, priority="high")
    team.held("first", "Preempted")
    world.wait_phase("urgent", "Running")
    team.finish("urgent")
    world.wait("the first is back", lambda: ("first", 2) in team.order())
    assert not later.is_admitted()
    team.finish("first")
    later.wait_admitted()
    team.uncharged("first", 2, "Evicted")
    later.delete()
