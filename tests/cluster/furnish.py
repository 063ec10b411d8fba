"""Namespaces as a user of one has them: enforcing `restricted`, with bound claims and the demo's model and prompts on them."""

import json
import os
from pathlib import Path

import yaml
from tests.cluster.jobs import EXAMPLES
from tests.cluster.kube import Document, Kube, wait

CLAIMS = ("models", "data", "checkpoints")
WORKLOAD_IMAGE = os.environ.get("LPRL_E2E_WORKLOAD_IMAGE", "ghcr.io/lprl/workload:0.1.0")


def furnish(kube: Kube, namespace: str, folder: str) -> None:
    """Make a namespace, its volumes (folders below `folder` of the one node, or a storage class's) and what the demo reads."""
    kube.apply(volumes(namespace, folder))
    wait_job(kube, "default", f"{namespace}-folders")
    kube.apply([demo_data(namespace)])
    wait_job(kube, namespace, "demo-data")


def remove(kube: Kube, namespace: str) -> None:
    """Remove a furnished namespace; its folders stay."""
    kube.run("delete", "namespace", namespace, "--timeout=150s", timeout_s=180, check=False)
    kube.run("delete", "pv", *(f"{namespace}-{claim}" for claim in CLAIMS), "--ignore-not-found", "--wait=false", check=False)
    kube.run("-n", "default", "delete", "job", f"{namespace}-folders", "--ignore-not-found", "--wait=false", check=False)


def volumes(namespace: str, folder: str) -> list[Document]:
    """Return examples/cluster/volumes.yaml for a namespace."""
    text = (EXAMPLES / "cluster" / "volumes.yaml").read_text().replace("/var/lib/lprl-demo", folder).replace("lprl-demo", namespace)
    found = list(yaml.safe_load_all(text.replace("ghcr.io/lprl/workload:0.1.0", WORKLOAD_IMAGE)))
    storage_class = os.environ.get("LPRL_E2E_STORAGE_CLASS")
    if not storage_class:
        return found
    claims = [d for d in found if d["kind"] in ("Namespace", "PersistentVolumeClaim")]
    for claim in claims[1:]:
        claim["spec"]["storageClassName"] = storage_class
        del claim["spec"]["volumeName"]
    return claims


def volume(kube: Kube, namespace: str, claim: str) -> Path:
    """Return the folder of this machine, which is the node, that a claim of a furnished namespace is."""
    found = json.loads(kube.run("get", "pv", f"{namespace}-{claim}", "-o", "json"))
    return Path(found["spec"]["hostPath"]["path"])


def demo_data(namespace: str) -> Document:
    """Return examples/cluster/demo-data.yaml for a namespace."""
    text = (EXAMPLES / "cluster" / "demo-data.yaml").read_text().replace("lprl-demo", namespace)
    found: Document = yaml.safe_load(text.replace("ghcr.io/lprl/workload:0.1.0", WORKLOAD_IMAGE))
    return found


def wait_job(kube: Kube, namespace: str, name: str) -> None:
    """Wait until a batch Job is complete; one that is not there is nothing to wait for."""

    def done() -> bool:
        found = kube.get("jobs", name, namespace)
        return found is None or any(
            c["type"] == "Complete" and c["status"] == "True" for c in found.get("status", {}).get("conditions", ())
        )

    wait(done, f"Job {name} complete", 180, lambda: kube.run("-n", namespace, "logs", f"job/{name}", "--tail=30", check=False))


def world_may_pass(folder: Path) -> None:
    """Let pods, which are user 1000, go through a folder of pytest's, which are for their owner only."""
    for part in (*folder.parents, folder):
        part.chmod(part.stat().st_mode | 0o011)
