"""A control plane with kwok nodes for the tests of this folder: kubelets are kwok's, Job pods and drivers are played by `Hand`."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lprl_api import names
from lprl_api.crd import crd
from lprl_operator.reconcile.kube.api import ApiError, KubeApi

ROOT = Path(__file__).parents[2]
ENV_DEVCLUSTER = "LPRL_DEVCLUSTER"
ENV_STATE = "LPRL_TEST_STATE"
CLAIMS = ("models", "data", "checkpoints", "reference")


def wait(check: Callable[[], Any], what: str, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> Any:
    """Return the first true answer; do something in between."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"after {seconds:g} s still not: {what}"
        meanwhile()
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def add_node(api: KubeApi, name: str, gpus: int) -> None:
    """Make a node kwok plays."""
    amounts = {"cpu": "192", "memory": "4Ti", "ephemeral-storage": "8Ti", "pods": "110"}
    if gpus:
        amounts["nvidia.com/gpu"] = str(gpus)
    labels = {"type": "kwok", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    notes = {"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"}
    api.post(
        "/api/v1/nodes",
        {"metadata": {"name": name, "labels": labels, "annotations": notes}, "status": {"allocatable": amounts, "capacity": amounts}},
    )


class Operator:
    """The operator as a process."""

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        self._folder, self.name = folder, name
        self._health, self._metrics = free_port(), free_port()
        base = {"healthPort": self._health, "metrics": {"port": self._metrics, "authentication": False}}
        self._settings = folder / f"{name}.yaml"
        self._settings.write_text(yaml.safe_dump({**base, **settings}))
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> "Operator":
        environment = {**os.environ, "LPRL_OPERATOR_CONFIG": str(self._settings), "POD_NAME": self.name, "POD_NAMESPACE": "default"}
        with (self._folder / f"{self.name}.log").open("a") as log:
            self._child = subprocess.Popen([sys.executable, "-m", "lprl_operator"], env=environment, stdout=log, stderr=log, cwd=ROOT)
        wait(lambda: self._get(self._health, "/healthz") is not None, f"{self.name} is healthy", 60)
        return self

    def is_leading(self) -> bool:
        return "\nlprl_leader 1.0" in (self._get(self._metrics, "/metrics") or "")

    def kill(self) -> None:
        assert self._child is not None
        self._child.kill()
        self._child.wait(10)

    def stop(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def log(self) -> str:
        return (self._folder / f"{self.name}.log").read_text()

    def _get(self, port: int, path: str) -> str | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return None


class Space:
    """One namespace with bound claims."""

    def __init__(self, api: KubeApi) -> None:
        self.api, self.name = api, f"t-{uuid.uuid4().hex[:8]}"
        api.post("/api/v1/namespaces", {"metadata": {"name": self.name}})
        for claim in CLAIMS:
            volume = f"{self.name}-{claim}"
            common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
            source = {"capacity": {"storage": "1Gi"}, "hostPath": {"path": "/none"}, "claimRef": {"namespace": self.name, "name": claim}}
            api.post("/api/v1/persistentvolumes", {"metadata": {"name": volume}, "spec": {**common, **source}})
            wanted = {**common, "volumeName": volume, "resources": {"requests": {"storage": "1Gi"}}}
            api.post(self.path("api/v1:persistentvolumeclaims"), {"metadata": {"name": claim}, "spec": wanted})

    def path(self, kind: str) -> str:
        """`apis/batch/v1:jobs` -> the collection of this namespace."""
        root, plural = kind.split(":")
        return f"/{root}/namespaces/{self.name}/{plural}"

    def jobs(self) -> str:
        return self.path(f"apis/{names.API_VERSION}:{names.PLURAL}")

    def submit(self, manifest: dict[str, Any]) -> None:
        self.api.post(self.jobs(), {**manifest, "metadata": {**manifest["metadata"], "namespace": self.name}})

    def status(self, name: str) -> dict[str, Any]:
        return dict(self.api.get(f"{self.jobs()}/{name}").get("status") or {})

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        return next((c for c in self.status(name).get("conditions", ()) if c["type"] == kind), {})

    def workers(self) -> list[dict[str, Any]]:
        return list(self.api.get(self.path("api/v1:pods"), labelSelector="ray.io/node-type=worker")["items"])

    def close(self) -> None:
        self.api.delete(f"/api/v1/namespaces/{self.name}", {"propagationPolicy": "Background"})
        for claim in CLAIMS:
            self.api.delete(f"/api/v1/persistentvolumes/{self.name}-{claim}", {})


@pytest.fixture(scope="session")
def api(api_server: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApi]:
    """The API server with our CRD, KubeRay, and kwok with its own stages but the one that ends Job pods."""
    kwok = shutil.which("kwok")
    if kwok is None:
        pytest.skip(f"no kwok on PATH: set {ENV_DEVCLUSTER} to a folder with up.sh")
    state = Path(os.environ["KUBECONFIG"]).parent
    os.environ[ENV_STATE] = str(state)
    stages = [d for d in yaml.safe_load_all((Path(kwok).parents[1] / "manifests" / "kwok-stages.yaml").read_text()) if d]
    (state / "stages.yaml").write_text(yaml.safe_dump_all(d for d in stages if d["metadata"]["name"] != "pod-complete"))
    flags = {
        "kubeconfig": os.environ["KUBECONFIG"],
        "config": state / "stages.yaml",
        "manage-all-nodes": "false",
        "manage-nodes-with-annotation-selector": "kwok.x-k8s.io/node=fake",
        "cidr": "10.245.0.0/16",
        "node-ip": "10.250.0.2",
        "server-address": f"127.0.0.1:{free_port()}",
    }
    with (state / "kwok.log").open("a") as log:
        child = subprocess.Popen([kwok, *(f"--{k}={v}" for k, v in flags.items())], stdout=log, stderr=log)
    found = KubeApi.connect()
    try:
        found.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd())
    except ApiError as error:
        assert error.reason == "AlreadyExists", error
    wait(lambda: _served(found), "both kinds are served", 60)
    yield found
    child.terminate()
    child.wait(20)


def _served(api: KubeApi) -> bool:
    try:
        for path in (f"/apis/{names.API_VERSION}/{names.PLURAL}", "/apis/ray.io/v1/rayclusters"):
            api.get(path)
    except ApiError:
        return False
    return True


@pytest.fixture
def space(api: KubeApi) -> Iterator[Space]:
    found = Space(api)
    yield found
    found.close()


@pytest.fixture
def make_operator(api: KubeApi, tmp_path: Path) -> Iterator[Callable[..., Operator]]:
    """Make operators that end with the test."""
    made: list[Operator] = []

    def make(name: str = "operator-1", **settings: Any) -> Operator:
        made.append(Operator(tmp_path, name, settings))
        return made[-1]

    yield make
    for operator in made:
        operator.stop()
    assert not [o.name for o in made if '"traceback"' in o.log()], "an operator tripped over a bug: see its log"
