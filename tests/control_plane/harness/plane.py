"""A control plane on this machine: the kit's etcd, kube-apiserver, controllers and KubeRay, and a kwok with stages of our own."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from tests.control_plane.harness.api import PLURALS, STRATEGIC, Api, ApiError, Document
from tests.control_plane.harness.script import CUT_OFF

from lprl_api.crd.generate import crd

ROOT = Path(__file__).parents[3]
ENV_DEVCLUSTER = "LPRL_DEVCLUSTER"
ENV_KEEP = "LPRL_CONTROL_PLANE_DIR"
"""State folder of a control plane to use and to leave running: saves 15 s a run while writing tests."""
POOL = "sim.lprl.dev/pool"
KIND = "sim.lprl.dev/kind"
CLUSTER_NAMESPACE = "lprl-system"


def kit() -> Path | None:
    """Folder with up.sh and down.sh; None when there is none."""
    found = Path(os.environ.get(ENV_DEVCLUSTER) or ROOT.parent / "shared" / "devcluster")
    return found if (found / "up.sh").exists() else None


NODE_GRACE = "24h"
"""Simulated nodes send no heartbeats: after the kit's three minutes each would be called NotReady, and all its pods with it."""


class Process:
    """A process of ours: its output goes to a file, its CPU time and memory can be asked for."""

    def __init__(self, name: str, command: list[str], log: Path, environment: dict[str, str]) -> None:
        self.name, self.log = name, log
        self.ended_by_us = False
        with log.open("a") as out:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=ROOT, start_new_session=True
            )
        self.pid = self._child.pid

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    def cpu_s(self) -> float:
        """Seconds of CPU so far, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self, field: str = "VmRSS") -> float:
        """Resident memory; `VmHWM`: its peak."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024

    def signal(self, number: int) -> None:
        self._child.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        self.ended_by_us = True
        self._child.kill()
        self._child.wait(10)

    def stop(self) -> None:
        """SIGTERM, then kill."""
        self.ended_by_us = True
        if self.alive:
            self._child.terminate()
            try:
                self._child.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


class ControlPlane:
    """Started by the kit's up.sh in a state folder of its own."""

    def __init__(
        self, folder: Path, kuberay: bool = True, keep: bool = False, ours: bool = True, flags: tuple[str, ...] = (), **environment: str
    ) -> None:
        """`flags` and `environment`: more of the kit's."""
        self.folder, self._keep = folder, keep
        self._environment = {"LPRL_NODE_GRACE": NODE_GRACE, **os.environ, **environment, "LPRL_CLUSTER_DIR": str(folder)}
        self._environment.pop("KUBECONFIG", None)
        self.up("--kuberay" if kuberay else "", *flags)
        self.kubeconfig = folder / "admin.kubeconfig"
        self.api = Api(self.kubeconfig)
        self._children: list[Process] = []
        if ours:
            self.install()
        self.api.ensure({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": CLUSTER_NAMESPACE}})

    def install(self) -> None:
        """Add our kind."""
        self.api.ensure(crd())
        self.wait_served("LowPrecisionRLJob")

    def up(self, *flags: str) -> None:
        """Start what does not run (again)."""
        found = kit()
        assert found is not None
        command = [str(found / "up.sh"), "--control-plane-only", *filter(None, flags)]
        for _ in range(3):  # on a busy machine it may give up before KubeRay's kinds are served; run again it goes on from there
            done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=300, check=False)
            if done.returncode == 0:
                break
        assert done.returncode == 0, done.stderr
        exported = dict(word.split("=", 1) for word in shlex.split(done.stdout) if "=" in word)
        self._environment["PATH"] = os.path.expandvars(exported["PATH"])
        self._environment["KUBECONFIG"] = exported["KUBECONFIG"]

    def service_account(self, name: str) -> Path:
        """Make a service account with all rights; returns a kubeconfig with a token of it."""
        group = "rbac.authorization.k8s.io"
        subject = {"kind": "ServiceAccount", "namespace": CLUSTER_NAMESPACE, "name": name}
        role = {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"}
        self.api.ensure({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}, CLUSTER_NAMESPACE)
        binding = {"apiVersion": f"{group}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name}}
        self.api.ensure({**binding, "roleRef": role, "subjects": [subject]})
        path = self.api.path("ServiceAccount", CLUSTER_NAMESPACE, name) + "/token"
        wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 86_400}}
        document = yaml.safe_load(self.kubeconfig.read_text())
        document["users"][0]["user"] = {"token": self.api.send("POST", path, wanted)["status"]["token"]}
        found = self.folder / f"{name}.kubeconfig"
        found.touch(mode=0o600)
        found.write_text(yaml.safe_dump(document))
        return found

    def wait_served(self, kind: str, seconds: float = 30.0) -> None:
        """Wait until a custom kind is listed by the API server's discovery, some time after its definition is established."""
        root, _, plural = PLURALS[kind].format("").rpartition("/")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if any(r["name"] == plural for r in self.api.send("GET", root)["resources"]):
                    return
            except ApiError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"{plural} not served after {seconds} s")

    def start(self, name: str, command: list[str], **environment: str) -> Process:
        """Start a process that ends with the control plane; its log lies in the state folder."""
        child = Process(name, command, self.folder / "log" / f"{name}.log", {**self._environment, **environment})
        self._children.append(child)
        return child

    def start_kwok(self) -> Process:
        """kwok with harness/stages.yaml, for nodes with its annotation."""
        stages = Path(__file__).with_name("stages.yaml")
        flags = {
            "kubeconfig": self.kubeconfig,
            "config": stages,
            "manage-all-nodes": "false",
            "manage-nodes-with-annotation-selector": "kwok.x-k8s.io/node=fake",
            "cidr": "10.245.0.0/16",
            "node-ip": "10.250.0.2",
            "v": "ERROR",
        }
        kwok = next(p for f in self._environment["PATH"].split(":") if (p := Path(f) / "kwok").exists())
        return self.start("kwok", [str(kwok), *(f"--{k}={v}" for k, v in flags.items())])

    def start_drivers(self, log: Path) -> Process:
        """The simulator of driver containers; `log` is made, and is where it says what they did."""
        log.touch()
        script = Path(__file__).with_name("driver.py")
        # -P: this folder on the path would put our operator.py before the standard library's.
        return self.start("driver-simulator", [sys.executable, "-P", str(script), "--kubeconfig", str(self.kubeconfig), "--log", str(log)])

    def add_nodes(self, pool: str, kind: str, count: int, first: int = 0, resources: dict[str, str] | None = None) -> list[str]:
        """Add nodes `POOL-KIND-NNN` that kwok plays; returns their names."""
        amounts = {"cpu": "128", "memory": "2000Gi", "pods": "110", "ephemeral-storage": "4Ti", **(resources or {})}
        found = [f"{pool}-{kind}-{i:03d}" for i in range(first, first + count)]
        for name in found:
            labels = {POOL: pool, KIND: kind, "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
            meta = {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}}
            self.api.create({"apiVersion": "v1", "kind": "Node", "metadata": meta, "status": {"allocatable": amounts, "capacity": amounts}})
        return found

    def add_gpu_nodes(self, pool: str, count: int, first: int = 0, gpus: int = 8) -> list[str]:
        """Add nodes with GPUs."""
        return self.add_nodes(pool, "gpu", count, first, {"nvidia.com/gpu": str(gpus)})

    def cut_off(self, node: str) -> None:
        """A node nobody hears of any more: kwok leaves it alone, and the node controller is told what it would find out later."""
        self.api.patch("Node", None, node, {"metadata": {"annotations": {"kwok.x-k8s.io/node": None}}})
        self.api.delete("Lease", "kube-node-lease", node)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        unknown = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "lastTransitionTime": now}
        self.api.patch("Node", None, node, {"status": {"conditions": [unknown]}}, STRATEGIC, "/status")
        # The controller marks the pods of a node that it finds silent itself; of one it was told of it only evicts them.
        silent = {"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "NodeNotReady", "lastTransitionTime": now}]}}
        for pod in self.api.list("Pod", fields=f"spec.nodeName={node}"):
            where = ("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
            self.api.patch(*where, {"metadata": {"annotations": {CUT_OFF: "yes"}}})
            if pod["status"]["phase"] == "Running":
                self.api.patch(*where, silent, STRATEGIC, "/status")

    def bring_back(self, node: str) -> None:
        """The node hears again what was deleted meanwhile."""
        for pod in self.api.list("Pod", fields=f"spec.nodeName={node}"):
            change = {"metadata": {"annotations": {CUT_OFF: None}}}
            self.api.patch("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"], change)

    def remove_nodes(self, pool: str) -> None:
        for node in self.api.list("Node", selector=f"{POOL}={pool}"):
            self.api.delete("Node", None, node["metadata"]["name"])

    def pid(self, name: str) -> int:
        """Process id of a part of the kit: etcd, kube-apiserver, ray-operator, ..."""
        return int((self.folder / "pid" / name).read_text().split()[0])

    def kill(self, name: str) -> None:
        """kill -9 a part of the kit; `up` starts it again."""
        os.kill(self.pid(name), signal.SIGKILL)

    @contextmanager
    def frozen(self, name: str, seconds: float) -> Iterator[None]:
        """SIGSTOP a part of the kit now, and SIGCONT it after `seconds` at the end of the block."""
        pid, started = self.pid(name), time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
            time.sleep(max(0.0, seconds - (time.monotonic() - started)))
        finally:
            os.kill(pid, signal.SIGCONT)

    def unexpected_ends(self) -> list[str]:
        """Processes of ours that are gone although nobody here ended them."""
        return [c.name for c in self._children if not c.alive and not c.ended_by_us]

    def down(self) -> None:
        """Stop every process of ours, and the kit unless it is kept."""
        for child in reversed(self._children):
            child.stop()
        found = kit()
        if not self._keep and found is not None:
            subprocess.run([str(found / "down.sh"), "--wipe"], env=self._environment, capture_output=True, timeout=120, check=False)


def make_namespace(api: Api, name: str, claims: tuple[str, ...] = ("models", "data", "checkpoints")) -> None:
    """Make a namespace with claims that are bound to volumes of their own."""
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    for claim in claims:
        volume = f"{name}-{claim}"
        common: Document = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
        spec: dict[str, Any] = {
            **common,
            "capacity": {"storage": "1Ti"},
            "hostPath": {"path": "/nowhere"},
            "claimRef": {"namespace": name, "name": claim},
        }
        api.create({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume, "labels": {POOL: name}}, "spec": spec})
        wanted = {**common, "volumeName": volume, "resources": {"requests": {"storage": "1Ti"}}}
        document = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim, "namespace": name}, "spec": wanted}
        api.create(document)


def remove_namespace(api: Api, name: str) -> None:
    """Delete a namespace and its volumes, without waiting."""
    api.delete("Namespace", None, name)
    for volume in api.list("PersistentVolume", selector=f"{POOL}={name}"):
        api.delete("PersistentVolume", None, volume["metadata"]["name"])


@contextmanager
def started(found: ControlPlane) -> Iterator[ControlPlane]:
    """Have a control plane with simulated nodes, and end it."""
    # A time limit around pytest sends SIGTERM: end what was started here all the same.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        found.start_kwok()
        yield found
    finally:
        found.down()
