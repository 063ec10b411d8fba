"""A job under test: an example with changes, what the cluster says of it, and what to print when it goes wrong."""

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.kube import Document, Kube, wait

EXAMPLES = Path(__file__).parents[2] / "examples"
FINISHED = ("Succeeded", "Failed")
START_S = 180
"""Inspection, conversion, pods and Ray up, on two cores."""


def example(path: str, name: str | None = None, **spec: Any) -> Document:
    """Return a manifest of examples/ under another name; `algorithm__steps=3` sets a field of its spec, None takes one away."""
    document: Document = copy.deepcopy(yaml.safe_load((EXAMPLES / path).read_text()))
    document["metadata"]["name"] = name or document["metadata"]["name"]
    for dotted, value in spec.items():
        *parents, leaf = dotted.split("__")
        node = document["spec"]
        for part in parents:
            node = node.setdefault(part, {})
        if value is None:
            node.pop(leaf, None)
        else:
            node[leaf] = value
    return document


def tiny(name: str, **spec: Any) -> Document:
    """Return the two-worker example with one worker and 20 steps: a minute from apply to Succeeded, several on two cores."""
    requests = {"requests": {"cpu": "100m", "memory": "1Gi"}}
    changes = {
        "evaluation": None,
        "topology__nodes": 1,
        "conversion__parallelism": 1,
        "conversion__resources__requests": {"cpu": "100m", "memory": "512Mi"},
        "algorithm__steps": 20,
        "algorithm__rolloutBatchSize": 16,
        "algorithm__samplesPerPrompt": 8,
        "checkpoint__everySteps": 5,
        "checkpoint__exportFormats": ["int4"],
        "failurePolicy__backoffSeconds": 3,
        "podTemplate": {"head": {"resources": requests}, "workers": {"resources": requests}},
    }
    return example("cluster/two-workers.yaml", name, **{**changes, **spec})


@dataclass(frozen=True)
class Job:
    """One LowPrecisionRLJob in the cluster."""

    kube: Kube
    namespace: str
    name: str

    def apply(self, document: Document) -> "Job":
        """Apply its manifest."""
        self.kube.run("-n", self.namespace, "apply", "-f", "-", text=json.dumps(document))
        return self

    def patch(self, spec: Document) -> None:
        """Change its spec."""
        self.kube.run("-n", self.namespace, "patch", "lprl", self.name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def status(self) -> Document:
        """Return its status, empty before the operator saw it."""
        found = self.kube.get("lprl", self.name, self.namespace)
        return dict((found or {}).get("status") or {})

    def step(self) -> int:
        """Return the step it reports."""
        return int((self.status().get("training") or {}).get("step") or 0)

    def checkpointed(self) -> int:
        """Return the step of its newest checkpoint, 0 without one."""
        checkpoint = (self.status().get("training") or {}).get("checkpoint") or {}
        return int(checkpoint.get("step") or 0)

    def pods(self, role: str) -> list[Document]:
        """Return its pods of a role that are not on their way out."""
        found = self.kube.list("pods", self.namespace, f"lprl.dev/job={self.name},lprl.dev/role={role}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def running(self) -> list[str]:
        """Return its RayClusters and their pods, also those on their way out."""
        return [child for child in self.children() if child.startswith(("RayCluster/", f"Pod/{self.name}-a"))]

    def wait_phase(self, *phases: str, seconds: float) -> Document:
        """Wait for one of the phases, or for the job's end."""
        status = wait(
            lambda: (s := self.status()).get("phase") in {*phases, *FINISHED} and s, f"{self.name} {'/'.join(phases)}", seconds, self.story
        )
        assert status["phase"] in phases, f"{self.name}: {status['phase']}\n{self.story()}"
        return dict(status)

    def wait_step(self, step: int, seconds: float) -> None:
        """Wait until it has made so many steps; fails when it ends before."""
        wait(lambda: self.step() >= step or self.status().get("phase") in FINISHED, f"{self.name} at step {step}", seconds, self.story)
        assert self.step() >= step, self.story()

    def condition(self, kind: str) -> Document:
        """Return a condition of its status."""
        return next((c for c in self.status().get("conditions", ()) if c["type"] == kind), {})

    def children(self) -> list[str]:
        """Return everything it owns alone, as kind/name. Conversions belong to every job that wants them."""
        kinds = ("jobs", "rayclusters", "configmaps", "serviceaccounts", "roles", "rolebindings", "networkpolicies", "pods")
        found = [o for kind in kinds for o in self.kube.list(kind, self.namespace, f"lprl.dev/job={self.name}")]
        return sorted(f"{o['kind']}/{o['metadata']['name']}" for o in found)

    def told(self) -> str:
        """Return what people are told of it: its message, conditions, failures and events."""
        status = self.status()
        events = self.kube.list("events", self.namespace, fields=f"involvedObject.name={self.name}")
        lines = [
            str(status.get("message", "")),
            *(f"{c['type']}={c['status']} {c['reason']}: {c['message']}" for c in status.get("conditions", ())),
        ]
        lines += [json.dumps(failure) for failure in status.get("failures", ())]
        return "\n".join([*lines, *(f"{event['type']} {event['reason']}: {event['message']}" for event in events)])

    def delete(self, seconds: float = 150) -> float:
        """Delete it and wait until nothing of it is left; returns how long that took."""
        begun = time.monotonic()
        self.kube.run("-n", self.namespace, "delete", "lprl", self.name, "--ignore-not-found", "--wait=false")
        wait(lambda: not self.children(), f"nothing of {self.name} left", seconds, lambda: "\n".join(self.children()))
        return time.monotonic() - begun

    def story(self) -> str:
        """Return what explains a failure: status, pods, events and the ends of the driver's and Ray's logs."""
        run = self.kube.run
        parts = [json.dumps(self.status(), indent=1), run("-n", self.namespace, "get", "pods,jobs,rayclusters", "-o", "wide", check=False)]
        parts.append(run("-n", self.namespace, "get", "events", "--sort-by=.lastTimestamp", check=False)[-4000:])
        for pod in self.kube.list("pods", self.namespace, f"lprl.dev/job={self.name}"):
            name = pod["metadata"]["name"]
            parts.append(f"--- {name}\n{run('-n', self.namespace, 'logs', name, '--all-containers', '--tail=25', check=False)[-4000:]}")
        return "\n".join(parts)


@contextmanager
def submitting(kube: Kube, namespace: str) -> Iterator[Callable[[Document], Job]]:
    """Apply manifests; the jobs are gone when the block ends."""
    jobs: list[Job] = []

    def apply(document: Document) -> Job:
        jobs.append(Job(kube, namespace, document["metadata"]["name"]))
        return jobs[-1].apply(document)

    try:
        yield apply
    finally:
        for job in jobs:
            job.delete()
