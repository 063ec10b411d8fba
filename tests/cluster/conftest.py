"""Real pods: a cluster with a kubelet, KubeRay, this checkout's images and chart, a restricted namespace, volumes and data.

$LPRL_E2E_KUBECONFIG names a cluster of yours, with KubeRay and with the images of this checkout (pushed, or loaded into its nodes;
$LPRL_E2E_OPERATOR_IMAGE and $LPRL_E2E_WORKLOAD_IMAGE when they are named otherwise); $LPRL_E2E_STORAGE_CLASS a class for ReadWriteMany
claims there, else folders of its one node are used. Without it, up.sh of $LPRL_DEVCLUSTER (or of shared/devcluster beside the
checkout) starts a node on this machine, which takes root. $LPRL_E2E_KEEP leaves everything running.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from tests.cluster import images_built
from tests.cluster.jobs import EXAMPLES, Job
from tests.cluster.kube import Document, Kube, wait

ROOT = Path(__file__).parents[2]
SYSTEM, NAMESPACE = "lprl-system", "lprl-e2e"
CLAIMS = ("models", "data", "checkpoints")
OPERATOR_IMAGE = os.environ.get("LPRL_E2E_OPERATOR_IMAGE", "ghcr.io/lprl/operator:0.1.0")
WORKLOAD_IMAGE = os.environ.get("LPRL_E2E_WORKLOAD_IMAGE", "ghcr.io/lprl/workload:0.1.0")
REQUESTS = {
    "headCpu": "200m",
    "headMemory": "1Gi",
    "driverCpu": "200m",
    "driverMemory": "1Gi",
    "conversionCpu": "250m",
    "conversionMemory": "512Mi",
}
"""Requests that fit a node of two cores beside Kubernetes itself; nothing is limited."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a cluster and takes minutes."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(1500))


@pytest.fixture(scope="session")
def kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """A cluster with a real node and KubeRay: the user's, else one on this machine for the session."""
    if named := os.environ.get("LPRL_E2E_KUBECONFIG"):
        yield Kube(Path(named).resolve(), os.environ["PATH"])
        return
    kit = Path(os.environ.get("LPRL_DEVCLUSTER") or ROOT.parent / "shared" / "devcluster")
    if not (kit / "up.sh").exists():
        pytest.skip("no cluster: set LPRL_E2E_KUBECONFIG, or LPRL_DEVCLUSTER to a folder with up.sh")
    if os.geteuid() != 0:
        pytest.skip("a real node on this machine takes root; or set LPRL_E2E_KUBECONFIG")
    if lacking := images_built.missing():
        pytest.skip(f"no {lacking}")
    files = images_built.built()
    state = {"LPRL_CLUSTER_DIR": os.environ.get("LPRL_E2E_STATE") or str(tmp_path_factory.mktemp("node"))}
    flags = ["--kuberay", "--tools", *(f"--import={file}" for file in files)]
    up = [str(kit / "up.sh"), *flags]
    started = subprocess.run(up, env={**os.environ, **state}, capture_output=True, text=True, timeout=600, check=False)
    try:
        assert started.returncode == 0, started.stderr
        exported = dict(word.split("=", 1) for word in shlex.split(started.stdout) if "=" in word)
        yield Kube(Path(exported["KUBECONFIG"]), os.path.expandvars(exported["PATH"]))
    finally:
        if not os.environ.get("LPRL_E2E_KEEP"):
            subprocess.run([str(kit / "down.sh"), "--wipe"], env={**os.environ, **state}, capture_output=True, timeout=180, check=False)


@pytest.fixture(scope="session")
def chart(kube: Kube) -> Iterator[None]:
    """The operator, installed with helm as a user would."""
    repository, _, tag = OPERATOR_IMAGE.rpartition(":")
    values = {
        "image": {"repository": repository, "tag": tag},
        "resources": {"requests": {"cpu": "50m"}},
        "podAnnotations": {"lprl.dev/test-content": images_built.content()},  # another build of one tag is rolled out
        "config": {"resources": {"image": WORKLOAD_IMAGE, **REQUESTS}},
    }
    install = ("upgrade", "--install", "lprl", str(ROOT / "charts" / "lprl"), "--namespace", SYSTEM, "--create-namespace", "--values", "-")
    kube.run(*install, "--wait", "--timeout", "3m", text=yaml.safe_dump(values), program="helm", timeout_s=240)
    yield
    if not os.environ.get("LPRL_E2E_KEEP"):
        kube.run("uninstall", "lprl", "--namespace", SYSTEM, "--wait", program="helm", check=False)


def volumes(folder: str) -> list[Document]:
    """Return examples/cluster/volumes.yaml for this namespace: folders of the one node, or a storage class's."""
    text = (EXAMPLES / "cluster" / "volumes.yaml").read_text().replace("/var/lib/lprl-demo", folder).replace("lprl-demo", NAMESPACE)
    found = list(yaml.safe_load_all(text.replace("ghcr.io/lprl/workload:0.1.0", WORKLOAD_IMAGE)))
    storage_class = os.environ.get("LPRL_E2E_STORAGE_CLASS")
    if not storage_class:
        return found
    claims = [d for d in found if d["kind"] in ("Namespace", "PersistentVolumeClaim")]
    for claim in claims[1:]:
        claim["spec"]["storageClassName"] = storage_class
        del claim["spec"]["volumeName"]
    return claims


@pytest.fixture(scope="session")
def namespace(kube: Kube, chart: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A namespace that enforces `restricted`, with bound claims and the demo's model and prompts on them."""
    own = "LPRL_E2E_KUBECONFIG" not in os.environ
    folder = str(tmp_path_factory.mktemp("volumes")) if own else "/var/lib/lprl-e2e"
    if own:
        for part in (*Path(folder).parents, Path(folder)):
            part.chmod(part.stat().st_mode | 0o011)  # pods are user 1000, pytest's folders are for their owner only
    kube.apply(volumes(folder))
    wait_job(kube, "default", f"{NAMESPACE}-folders")
    kube.apply([demo_data()])
    wait_job(kube, NAMESPACE, "demo-data")
    yield NAMESPACE
    if not os.environ.get("LPRL_E2E_KEEP"):
        kube.run("delete", "namespace", NAMESPACE, "--timeout=150s", timeout_s=180, check=False)
        kube.run("delete", "pv", *(f"{NAMESPACE}-{claim}" for claim in CLAIMS), "--ignore-not-found", "--wait=false", check=False)
        shutil.rmtree(folder, ignore_errors=True)


def demo_data() -> Document:
    """Return examples/cluster/demo-data.yaml for this namespace."""
    text = (EXAMPLES / "cluster" / "demo-data.yaml").read_text().replace("lprl-demo", NAMESPACE)
    found: Document = yaml.safe_load(text.replace("ghcr.io/lprl/workload:0.1.0", WORKLOAD_IMAGE))
    return found


@pytest.fixture(scope="session")
def model(kube: Kube, namespace: str) -> Callable[[Document], None]:
    """Make the small model an example reads, where it is not the demo's."""
    made = {"qwen3-small"}

    def make(manifest: Document) -> None:
        name = manifest["spec"]["model"]["source"]["path"]
        if name not in made:
            job, architecture = demo_data(), manifest["metadata"]["labels"]["lprl.dev/demo-architecture"]
            job["metadata"]["name"] = f"model-{name}"
            folder = ["--model", f"/volumes/models/{name}", "--architecture", architecture]
            job["spec"]["template"]["spec"]["containers"][0]["command"] = ["python", "-m", "lprl_fixtures", *folder]
            kube.apply([job])
            wait_job(kube, namespace, f"model-{name}")
            made.add(name)

    return make


def wait_job(kube: Kube, namespace: str, name: str) -> None:
    """Wait until a batch Job is complete; one that is not there is nothing to wait for."""

    def done() -> bool:
        found = kube.get("job", name, namespace)
        return found is None or any(
            c["type"] == "Complete" and c["status"] == "True" for c in found.get("status", {}).get("conditions", ())
        )

    wait(done, f"Job {name} complete", 180, lambda: kube.run("-n", namespace, "logs", f"job/{name}", "--tail=30", check=False))


@pytest.fixture
def submit(kube: Kube, namespace: str) -> Iterator[Callable[[Document], Job]]:
    """Apply manifests; the jobs are gone when the test ends."""
    jobs: list[Job] = []

    def apply(document: Document) -> Job:
        jobs.append(Job(kube, namespace, document["metadata"]["name"]))
        return jobs[-1].apply(document)

    yield apply
    for job in jobs:
        job.delete()
