"""Sandboxes on a real node: the documented template with this checkout's tools, the jobs that claim them, and what became of them."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.furnish import WORKLOAD_IMAGE, demo_data
from tests.cluster.jobs import Job, example, tiny
from tests.cluster.kube import Document, Kube, wait
from tests.sandbox.documented import documented

from lprl_fixtures.lookup import SECRET

LOOKUP, PYTHON = "lookup", "python"
PORT = 8080
AT_ONCE, EPISODES, HELD = 4, 64, 2
TOOL = {
    "name": PYTHON,
    "description": "Runs code.",
    "parameters": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
    "sandbox": {"warmPool": PYTHON, "maxConcurrent": HELD, "claimSeconds": 120},
}


def pool(name: str, namespace: str, replicas: int, command: list[str], secret: str = "") -> list[Document]:
    """Return the documented template and pool by another name, with a tool of the workload image; `secret` is to be found in /data."""
    template, found = documented()
    template["metadata"] = {"name": name, "namespace": namespace}
    pod = template["spec"]["podTemplate"]["spec"]
    pod["containers"][0].update({"image": WORKLOAD_IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["python", "-m", *command]})
    if secret:
        pod["containers"][0]["volumeMounts"].append({"name": "data", "mountPath": "/data", "readOnly": True})
        pod["volumes"].append({"name": "data", "secret": {"secretName": secret}})
    found["metadata"] = {"name": name, "namespace": namespace}
    found["spec"] = {"replicas": replicas, "sandboxTemplateRef": {"name": name}}
    return [template, found]


def lookups(namespace: str, secret: str) -> list[Document]:
    """Return the pool of the example's tool, and the secret that this knows."""
    kept = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": LOOKUP, "namespace": namespace}, "stringData": {SECRET: secret}}
    return [kept, *pool(LOOKUP, namespace, AT_ONCE, ["lprl_fixtures.lookup_server", "/data", str(PORT), "0.0.0.0"], LOOKUP)]


def pythons(namespace: str) -> list[Document]:
    """Return the pool of a tool that runs Python."""
    return pool(PYTHON, namespace, HELD, ["lprl_fixtures.python_server", str(PORT), "0.0.0.0"])


@contextmanager
def filled(kube: Kube, namespace: str, documents: list[Document]) -> Iterator[None]:
    """Have a pool, with all of its sandboxes ready at the beginning."""
    kube.apply(documents)
    name, size = documents[-1]["metadata"]["name"], documents[-1]["spec"]["replicas"]
    wait(lambda: ready(kube, namespace, name) == size, f"{size} sandboxes of {name}", 180)
    try:
        yield
    finally:
        kube.run("-n", namespace, "delete", *(f"{document['kind']}/{name}" for document in documents), "--wait=false")


def ready(kube: Kube, namespace: str, name: str) -> int:
    """Return how many sandboxes of a pool can be claimed."""
    found = kube.get("warmpools", name, namespace) or {}
    return int((found.get("status") or {}).get("readyReplicas") or 0)


def model(namespace: str) -> Document:
    """Return a Job that makes the example's model, without the bad habits of the one it learns from: this one asks."""
    job = demo_data(namespace)
    job["metadata"]["name"] = "model-lookup"
    code = "from pathlib import Path\nfrom lprl_fixtures.lookup_model import write_lookup_model\nimport torch\ntorch.set_num_threads(1)\n"
    code += "print(write_lookup_model(Path('/volumes/models/lookup'), habits=0))"
    job["spec"]["template"]["spec"]["containers"][0]["command"] = ["python", "-c", code]
    return job


def sixty_four() -> Document:
    """Return the example: one step of 64 episodes, of which four may have a sandbox at a time."""
    tool = dict(example("41-sandbox-tool.yaml")["spec"]["episode"]["tools"][0])
    tool["sandbox"] = {**tool["sandbox"], "maxConcurrent": AT_ONCE, "claimSeconds": 120}
    requests = {"requests": {"cpu": "100m", "memory": "1Gi"}}
    changes: dict[str, Any] = {
        "evaluation": None,
        "algorithm__steps": 1,
        "algorithm__rolloutBatchSize": EPISODES // 4,
        "algorithm__samplesPerPrompt": 4,
        "checkpoint__everySteps": 1,
        "checkpoint__exportFormats": ["int4"],
        "episode__tools": [{**tool, "timeoutSeconds": 60}],
        "episode__timeoutSeconds": 900,
        "conversion__parallelism": 1,
        "conversion__resources": {"requests": {"cpu": "100m", "memory": "512Mi"}},
        "podTemplate": {"head": {"resources": requests}, "workers": {"resources": requests}},
    }
    return example("41-sandbox-tool.yaml", **changes)


def staying(name: str) -> Document:
    """Return a job whose first two episodes claim a sandbox each and keep it."""
    episode = {"type": "python", "function": "lprl_fixtures.runs:asks_and_stays", "tools": [TOOL], "timeoutSeconds": 900}
    return tiny(name, episode=episode, failurePolicy__maxRestarts=0)


@dataclass
class Seen:
    """What a watch told of the claims of a job and of the sandboxes that they had."""

    most: int = 0
    """Claims that were there at a time."""
    given: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By a claim's uid: name and address of its sandbox, once it was ready."""


@contextmanager
def watching(job: Job, folder: Path) -> Iterator[Path]:
    """Have every change of a job's claims written to a file."""
    told = folder / f"{job.name}-claims.json"
    words = ["kubectl", "-n", job.namespace, "get", "sandboxclaims", "-l", f"lprl.dev/job={job.name}", "-o", "json"]
    environment = {"KUBECONFIG": str(job.kube.kubeconfig), "PATH": job.kube.path, "HOME": str(folder)}
    with told.open("w") as out:
        process = subprocess.Popen([*words, "--watch", "--output-watch-events"], stdout=out, env=environment)
        try:
            yield told
        finally:
            process.terminate()
            process.wait(30)


def seen(told: Path) -> Seen:
    """Return what a watch has told."""
    found, there = Seen(), set[str]()
    decoder, text, at = json.JSONDecoder(), told.read_text(), 0
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        event, at = decoder.raw_decode(text, at)
        claim, uid = event["object"], event["object"]["metadata"]["uid"]
        there = there - {uid} if event["type"] == "DELETED" else there | {uid}
        found.most = max(found.most, len(there))
        sandbox = (claim.get("status") or {}).get("sandbox") or {}
        if sandbox.get("podIPs"):
            found.given[uid] = (sandbox["name"], sandbox["podIPs"][0])
    return found


def claims(job: Job) -> list[Document]:
    """Return the claims of a job."""
    return job.kube.list("claims", job.namespace, f"lprl.dev/job={job.name}")


def addresses(job: Job) -> list[str]:
    """Return the addresses of the sandboxes that a job's claims have."""
    given = [((claim.get("status") or {}).get("sandbox") or {}).get("podIPs") or () for claim in claims(job)]
    return [address for (address, *_) in filter(None, given)]


def left_over(kube: Kube, namespace: str, *jobs: str) -> list[str]:
    """Return claims of jobs, and sandboxes and pods that belong to no pool."""
    found = [f"claim {c['metadata']['name']}" for name in jobs for c in kube.list("claims", namespace, f"lprl.dev/job={name}")]
    sandboxes = {s["metadata"]["name"]: s["metadata"].get("ownerReferences", ()) for s in kube.list("sandboxes", namespace)}
    for name, owners in sandboxes.items():
        if {owner["kind"] for owner in owners} != {"SandboxWarmPool"}:
            found.append(f"sandbox {name} of {owners}")
    pods = kube.list("pods", namespace, "agents.x-k8s.io/sandbox-template-ref-hash")
    return found + [f"pod {name}" for name in (p["metadata"]["name"] for p in pods) if name not in sandboxes]


def nothing_left(kube: Kube, namespace: str, *jobs: str) -> None:
    """Wait until no claim of the jobs is there, and no sandbox or pod but the pools' own."""
    wait(
        lambda: not left_over(kube, namespace, *jobs), f"nothing left of {jobs}", 120, lambda: "\n".join(left_over(kube, namespace, *jobs))
    )


def kill_driver(job: Job) -> None:
    """End a job's driver with SIGKILL, as the kernel does to what takes too much memory."""
    (head,) = job.pods("head")
    (driver,) = (c for c in head["status"]["containerStatuses"] if c["name"] == "driver")
    container = driver["containerID"].rpartition("/")[2]
    inside = [p for p in Path("/proc").iterdir() if p.name.isdigit() and container in _cgroup(p)]
    assert inside, f"no process of container {container} is on this machine"
    for process in inside:
        os.kill(int(process.name), 9)


def _cgroup(process: Path) -> str:
    try:
        return (process / "cgroup").read_text()
    except OSError:  # it ended meanwhile
        return ""
