"""A control plane with kwok nodes for the tests of this folder: kubelets are kwok's, Job pods and drivers are played by `Hand`."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.contract.operator_process import Operator, free_port, wait

from lprl_api import names
from lprl_api.crd import crd
from lprl_operator.reconcile.kube.api import ApiError, KubeApi

ENV_DEVCLUSTER = "LPRL_DEVCLUSTER"
ENV_STATE = "LPRL_TEST_STATE"
CLAIMS = ("models", "data", "checkpoints", "reference")


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
