"""A job in a queue of the real Kueue, with real pods: it waits, trains, is preempted in the middle, and comes back to its end."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cluster.furnish import volume
from tests.cluster.jobs import START_S, Job, submitting, tiny
from tests.cluster.kube import Document, Kube, wait

V1 = "kueue.x-k8s.io/v1beta2"
QUEUE, PRIORITY = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"
TRAINING, PREPARING, HELD = "e2e-training", "e2e-preparing", "e2e-held"
"""Queues: one training fits the first one, inspections and conversions have the second. The third leads to the first, once it may."""
ONE, TOO_LITTLE = "300m", "200m"
"""CPUs that a training requests, in its head, its driver and its worker; and fewer."""
STEPS, EVERY = 40, 2
QUEUED_S, FINISH_S = 180, 600
LEISURELY: dict[str, Any] = {
    "data__reward": {"type": "python", "function": "lprl_fixtures.runs:even_share_at_leisure", "timeoutSeconds": 3600},
    "algorithm__steps": STEPS,
    "algorithm__rolloutBatchSize": 4,
    "algorithm__samplesPerPrompt": 2,
    "checkpoint__everySteps": EVERY,
}
"""Attempt 1 takes four seconds a step, so that it is in its middle when the urgent job is let in; attempt 2 does not."""


def cluster_queue(name: str, cpu: str) -> Document:
    """Return a queue in which higher priorities preempt."""
    amounts = {"cpu": cpu, "memory": "64Gi"}
    resources = [{"name": kind, "nominalQuota": amount} for kind, amount in amounts.items()]
    groups = [{"coveredResources": list(amounts), "flavors": [{"name": TRAINING, "resources": resources}]}]
    spec = {"namespaceSelector": {}, "preemption": {"withinClusterQueue": "LowerPriority"}, "resourceGroups": groups}
    return {"apiVersion": V1, "kind": "ClusterQueue", "metadata": {"name": name}, "spec": spec}


def local_queue(name: str, namespace: str, stop: str = "None") -> Document:
    """Return a queue of the namespace; `Hold` lets nothing in."""
    spec = {"clusterQueue": TRAINING if name == HELD else name, "stopPolicy": stop}
    return {"apiVersion": V1, "kind": "LocalQueue", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


@contextmanager
def queues(kube: Kube, namespace: str) -> Iterator[None]:
    """Make two queues of the namespace and two priorities; there is not quota enough for a training yet."""
    made: list[Document] = [
        {"apiVersion": V1, "kind": "ResourceFlavor", "metadata": {"name": TRAINING}},
        *(
            {"apiVersion": V1, "kind": "WorkloadPriorityClass", "metadata": {"name": name}, "value": value}
            for name, value in (("patient", 10), ("urgent", 1000))
        ),
    ]
    made += [cluster_queue(TRAINING, TOO_LITTLE), cluster_queue(PREPARING, "1")]
    local = [local_queue(TRAINING, namespace), local_queue(PREPARING, namespace), local_queue(HELD, namespace, "Hold")]
    kube.apply([*made, *local])
    yield
    kube.run("-n", namespace, "delete", "localqueue", TRAINING, PREPARING, HELD, "--wait=false")
    kube.run("delete", *(f"{d['kind']}/{d['metadata']['name']}" for d in made), "--wait=false")


def queued(name: str, queue: str, **spec: Any) -> Document:
    """Return a small job that queues; its priority's name is its own."""
    document = tiny(name, conversion__queueName=PREPARING, **spec)
    document["metadata"]["labels"].update({QUEUE: queue, PRIORITY: name})
    return document


def workload(job: Job) -> Document:
    """Return the Workload of a job's RayCluster."""
    (cluster,) = job.kube.list("rayclusters", job.namespace, f"lprl.dev/job={job.name}")
    queued = job.kube.list("workloads", job.namespace)
    return next(w for w in queued for owner in w["metadata"].get("ownerReferences", ()) if owner["uid"] == cluster["metadata"]["uid"])


def steps_on_disk(job: Job) -> list[int]:
    """Return the steps of the rows a run has written beside its checkpoints, in their order."""
    (rows,) = volume(job.kube, job.namespace, "checkpoints").rglob(f"{job.name}/metrics.jsonl")
    return [int(json.loads(row)["step"]) for row in rows.read_text().splitlines()]


def says(job: Job, *words: str, seconds: float = QUEUED_S) -> None:
    """Wait until people are told all these words of a job."""
    wait(lambda: all(word in job.told() for word in words), f"{job.name} says {words}", seconds, job.story)


def preempted_and_back(kube: Kube, namespace: str) -> None:
    """A job waits, trains, is preempted in its middle, comes back in its Workload, and makes each step once; nothing is charged."""
    with queues(kube, namespace), submitting(kube, namespace) as submit:
        first = submit(queued("patient", TRAINING, **LEISURELY))
        urgent = submit(queued("urgent", HELD, algorithm__steps=EVERY, checkpoint__everySteps=EVERY))
        uid = waits_and_trains(first)
        says(urgent, "ClusterReady=False Queued: ")
        kube.apply([local_queue(HELD, namespace)])
        is_preempted(first)
        done = urgent.wait_phase("Succeeded", seconds=START_S + FINISH_S)
        assert (done["attempt"], done["training"]["summary"]) == (1, f"{EVERY}/{EVERY}"), urgent.told()
        comes_back(first, uid)


def waits_and_trains(first: Job) -> str:
    """It is queued without a pod, and let in when there is quota. Returns the uid of its Workload, once there is a checkpoint."""
    says(first, "ClusterReady=False Queued: ", "Pending", "cpu")
    assert not [pod for role in ("head", "workers") for pod in first.pods(role)], first.story()
    first.kube.apply([cluster_queue(TRAINING, ONE)])
    first.wait_phase("Running", seconds=START_S)
    wait(lambda: first.checkpointed() >= EVERY, "a checkpoint", QUEUED_S, first.story)
    return str(workload(first)["metadata"]["uid"])


def is_preempted(first: Job) -> None:
    """It is told who took its quota, its pods are gone, and its checkpoint is not."""
    says(first, "Preempted")
    wait(lambda: not [child for child in first.running() if child.startswith("Pod/")], "its pods are gone", QUEUED_S, first.story)
    evicted = next(c for c in workload(first)["status"]["conditions"] if c["type"] == "Evicted")
    assert (evicted["status"], evicted["reason"]) == ("True", "Preempted"), evicted
    assert EVERY <= first.checkpointed() <= max(steps_on_disk(first)) < STEPS, first.story()


def comes_back(first: Job, uid: str) -> None:
    """In the Workload it had, to its end."""
    wait(lambda: first.status()["attempt"] == 2 and first.pods("head"), "attempt 2", START_S, first.story)
    assert workload(first)["metadata"]["uid"] == uid
    ended = first.wait_phase("Succeeded", seconds=START_S + FINISH_S)
    told = [(failure["attempt"], failure["reason"]) for failure in ended["failures"]]
    assert (ended["attempt"], ended.get("restartsUsed", 0), told) == (2, 0, [(1, "Evicted")]), first.told()
    assert ended["training"]["summary"] == f"{STEPS}/{STEPS}" and steps_on_disk(first) == list(range(1, STEPS + 1))
    wait(lambda: not first.running(), "its pods are gone", 90, first.story)
