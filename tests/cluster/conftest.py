"""Real pods: a cluster with a kubelet, KubeRay, this checkout's images and chart, a restricted namespace, volumes and data.

$LPRL_E2E_KUBECONFIG names a cluster of yours, with KubeRay and with the images of this checkout (pushed, or loaded into its nodes;
$LPRL_E2E_OPERATOR_IMAGE and $LPRL_E2E_WORKLOAD_IMAGE when they are named otherwise); $LPRL_E2E_STORAGE_CLASS a class for ReadWriteMany
claims there, else folders of its one node are used. Without it, up.sh of $LPRL_DEVCLUSTER (or of shared/devcluster beside the
checkout) starts a node on this machine, which takes root. $LPRL_E2E_KEEP leaves everything running; $LPRL_E2E_PATIENCE multiplies
deadlines.

What installs and uninstalls as the pages say, or needs the only node, its folders or the API server's audit log, runs on a node of this
machine only.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from tests.cluster import images_built
from tests.cluster.furnish import WORKLOAD_IMAGE, demo_data, furnish, remove, wait_job, world_may_pass
from tests.cluster.jobs import Job, submitting
from tests.cluster.kube import Document, Kube
from tests.cluster.queued import preempted_and_back
from tests.cluster.reproducers import SCENARIOS

ROOT = Path(__file__).parents[2]
KIT = Path(os.environ.get("LPRL_DEVCLUSTER") or ROOT.parent / "shared" / "devcluster")
SYSTEM, NAMESPACE = "lprl-system", "lprl-e2e"
OPERATOR_IMAGE = os.environ.get("LPRL_E2E_OPERATOR_IMAGE", "ghcr.io/lprl/operator:0.1.0")
OURS = "LPRL_E2E_KUBECONFIG" not in os.environ
"""The cluster is a node of this machine, for this session alone."""
ORDER = (
    "test_first_job",
    "test_training_job",
    "test_reproducers",
    "test_examples",
    "test_faults",
    "test_sandboxes",
    "test_queue",
    "test_pages",
)
"""The first installs on an empty cluster, as documented, and the last takes everything away; the rest share one installation."""
AT_ONCE = 1
"""Reproducers at a time, beside a job that trains: two Rays that start keep two cores busy, four keep each other from ever starting."""
ONLY_OURS = ("test_first_job", "test_training_job", "test_sandboxes", "test_queue", "test_pages")
REQUESTS = {
    "headCpu": "100m",
    "headMemory": "1Gi",
    "driverCpu": "100m",
    "driverMemory": "1Gi",
    "conversionCpu": "100m",
    "conversionMemory": "512Mi",
}
"""Requests that let several jobs onto a node of two cores beside Kubernetes itself; nothing is limited."""
AUDITED = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    verbs: [create, update, patch, delete]
    namespaces: [team]
  - level: None
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Everything here needs a cluster and takes minutes, in an order."""
    mine = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in mine:
        item.add_marker(pytest.mark.cluster)
        item.add_marker(pytest.mark.timeout(1500))
    away = [] if OURS else [item for item in mine if item.path.stem in ONLY_OURS]
    config.hook.pytest_deselected(items=away)
    kept = sorted((item for item in mine if item not in away), key=lambda item: ORDER.index(item.path.stem))
    items[:] = [item for item in items if item not in mine] + kept


@pytest.fixture(scope="session")
def kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """A cluster with a real node and KubeRay: the user's, else one on this machine for the session."""
    if not OURS:
        yield Kube(Path(os.environ["LPRL_E2E_KUBECONFIG"]).resolve(), os.environ["PATH"])
        return
    if not (KIT / "up.sh").exists():
        pytest.skip("no cluster: set LPRL_E2E_KUBECONFIG, or LPRL_DEVCLUSTER to a folder with up.sh")
    if os.geteuid() != 0:
        pytest.skip("a real node on this machine takes root; or set LPRL_E2E_KUBECONFIG")
    if lacking := images_built.missing():
        pytest.skip(f"no {lacking}")
    files = images_built.built()
    folder = Path(os.environ.get("LPRL_E2E_STATE") or tmp_path_factory.mktemp("node"))
    try:
        yield node(folder, "--kuberay", "--tools", *(f"--import={file}" for file in files))
    finally:
        if not os.environ.get("LPRL_E2E_KEEP"):
            state = {**os.environ, "LPRL_CLUSTER_DIR": str(folder)}
            subprocess.run([str(KIT / "down.sh"), "--wipe"], env=state, capture_output=True, timeout=180, check=False)


def node(folder: Path, *flags: str) -> Kube:
    """Start this machine's node, or what it lacks of the flags, with its state in a folder."""
    policy, audit = folder / "audit-policy.yaml", folder / "audit.log"
    policy.write_text(AUDITED)
    arguments = f"--audit-policy-file={policy} --audit-log-path={audit}"
    state = {**os.environ, "LPRL_CLUSTER_DIR": str(folder), "LPRL_APISERVER_ARGS": arguments}
    done = subprocess.run([str(KIT / "up.sh"), *flags], env=state, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    exported = dict(word.split("=", 1) for word in shlex.split(done.stdout) if "=" in word)
    return Kube(Path(exported["KUBECONFIG"]), os.path.expandvars(exported["PATH"]), audit)


@pytest.fixture(scope="session")
def chart(kube: Kube) -> Iterator[None]:
    """The operator, installed with helm as a user would; on a node of ours beside Kueue and agent-sandbox, for rights on their kinds."""
    if OURS:
        node(kube.kubeconfig.parent, "--kuberay", "--kueue", "--sandbox")
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


@pytest.fixture(scope="session")
def place(kube: Kube, chart: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Make furnished namespaces; they are gone when the session ends."""
    folder = Path(tmp_path_factory.mktemp("volumes")) if OURS else Path("/var/lib/lprl-e2e")
    if OURS:
        world_may_pass(folder)
    made: list[str] = []

    def make(namespace: str) -> str:
        made.append(namespace)
        furnish(kube, namespace, str(folder / namespace))
        return namespace

    yield make
    if not os.environ.get("LPRL_E2E_KEEP"):
        for namespace in made:
            remove(kube, namespace)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def namespace(place: Callable[[str], str]) -> str:
    """The furnished namespace most jobs share."""
    return place(NAMESPACE)


@pytest.fixture(scope="session")
def model(kube: Kube, namespace: str) -> Callable[[Document], None]:
    """Make the small model an example reads, where it is not the demo's."""
    made = {"qwen3-small"}

    def make(manifest: Document) -> None:
        name = manifest["spec"]["model"]["source"]["path"]
        if name not in made:
            job, architecture = demo_data(namespace), manifest["metadata"]["labels"]["lprl.dev/demo-architecture"]
            job["metadata"]["name"] = f"model-{name}"
            folder = ["--model", f"/volumes/models/{name}", "--architecture", architecture]
            job["spec"]["template"]["spec"]["containers"][0]["command"] = ["python", "-m", "lprl_fixtures", *folder]
            kube.apply([job])
            wait_job(kube, namespace, f"model-{name}")
            made.add(name)

    return make


@pytest.fixture
def submit(kube: Kube, namespace: str) -> Iterator[Callable[[Document], Job]]:
    """Apply manifests; the jobs are gone when the test ends."""
    with submitting(kube, namespace) as apply:
        yield apply


@pytest.fixture(scope="session")
def beside(request: pytest.FixtureRequest, kube: Kube, namespace: str, place: Callable[[str], str]) -> Iterator[dict[str, Future[None]]]:
    """The chosen reproducers, in a thread beside the tests from when this is asked for."""
    chosen = {
        item.callspec.params.get("name")
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
    }
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(run, kube, namespace, place) for name, run in SCENARIOS.items() if name in chosen}


@pytest.fixture(scope="session")
def in_queue(kube: Kube, namespace: str) -> Iterator["Future[None]"]:
    """A job that queues, in a thread from when this is asked for."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(preempted_and_back, kube, namespace)
