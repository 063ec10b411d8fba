"""What lies outside of a sandbox: who may be reached there, and pods from which the same attempts succeed."""

import http.client
import json
import socket
import threading
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import yaml
from tests.cluster import given_sandboxes as given
from tests.cluster.enforcer import BRIDGE, Enforcer
from tests.cluster.escapes import ATTEMPTS, COMMON, LOOSE, MATE
from tests.cluster.furnish import WORKLOAD_IMAGE
from tests.cluster.jobs import Job
from tests.cluster.kube import Document, Kube, wait

STAND_INS = "lprl_stand_ins"
METADATA, INTERNET = "169.254.169.254", "203.0.113.80"
"""What clouds answer at, and an address for documentation: for pods, a server of the test's."""
FILES = "/host"
START_S, CALL_S = 120, 120
SERVER = ["python", "-m", "lprl_fixtures.python_server", str(given.PORT), "0.0.0.0"]


def pod(name: str, namespace: str, labels: dict[str, str], spec: Document, container: Document) -> Document:
    """Return a pod that runs Python for whoever asks."""
    probe = {"tcpSocket": {"port": given.PORT}, "periodSeconds": 1}
    whole = {"name": "tool", "image": WORKLOAD_IMAGE, "imagePullPolicy": "IfNotPresent", "command": SERVER, "readinessProbe": probe}
    meta = {"name": name, "namespace": namespace, "labels": labels}
    containers = [{**whole, **container}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {**spec, "terminationGracePeriodSeconds": 0, "containers": containers},
    }


def controls(job: Job) -> list[Document]:
    """Return the pods that nothing keeps (privileged, a token, the node's files) and that the job's policy lets in."""
    files = {
        "volumes": [{"name": "files", "hostPath": {"path": "/"}}],
        "hostPID": True,
        "securityContext": {"runAsUser": 0, "runAsGroup": 0},
    }
    loose = {"securityContext": {"privileged": True}, "volumeMounts": [{"name": "files", "mountPath": FILES, "readOnly": True}]}
    secure = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    mate = {"securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}
    return [
        pod(LOOSE, "default", {}, files, loose),
        pod(MATE, job.namespace, {"lprl.dev/job": job.name}, {"securityContext": secure, "automountServiceAccountToken": False}, mate),
    ]


def run(address: str, code: str) -> str:
    """Have a pod run code; returns what it printed, or how it ended."""
    body = json.dumps({"name": "python", "arguments": {"code": code}}).encode()
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(f"http://{address}:{given.PORT}/", body), timeout=CALL_S) as answer:
            said = json.load(answer)
    except (OSError, http.client.HTTPException) as error:  # the kernel ended the server, for one
        return f"kept: no answer: {error}"
    assert "error" not in said, said
    return str(said["result"]).strip()


class Outside:
    """The surroundings of a job that has two sandboxes."""

    def __init__(self, kube: Kube, job: Job, enforcer: Enforcer) -> None:
        self._kube, self._job, self._enforcer = kube, job, enforcer
        self._pods = controls(job)
        self._server = socket.create_server(("0.0.0.0", 0))

    def __enter__(self) -> "Outside":
        self._kube.apply(self._pods)
        threading.Thread(target=self._answer, daemon=True).start()
        rule = (
            f'iifname "{BRIDGE}" ip daddr {{ {METADATA}, {INTERNET} }} tcp dport 80 dnat to {self._node()}:{self._server.getsockname()[1]}'
        )
        hook = "type nat hook prerouting priority dstnat - 1;"
        self._nft(f"table ip {STAND_INS} {{ chain prerouting {{ {hook} {rule}; }}; }}\n")
        return self

    def __exit__(self, *_: object) -> None:
        self._nft(f"delete table ip {STAND_INS}\n")
        self._server.close()
        for found in self._pods:
            self._kube.run("-n", found["metadata"]["namespace"], "delete", "pod", found["metadata"]["name"], "--wait=false")

    def tried(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return what each attempt said: in the first sandbox, and in the pod that is its control."""
        mine, other = given.addresses(self._job)
        for claim in given.claims(self._job):
            self._enforcer.covers(self._job.namespace, claim["status"]["sandbox"]["name"])
        where = {name: self._ready(*at) for name, at in ((LOOSE, ("default", LOOSE)), (MATE, (self._job.namespace, MATE)))}
        places = self._places(other)
        for address in (mine, *where.values()):
            run(address, COMMON)
        freely = {name: run(where[attempt.control], attempt.code({**places, "files": FILES})) for name, attempt in ATTEMPTS.items()}
        kept = {name: run(mine, attempt.code({**places, "files": ""})) for name, attempt in ATTEMPTS.items()}
        kept["into a sandbox from a pod of nobody's"] = run(where[LOOSE], f"attempt(lambda: reaches('{mine}', {given.PORT}))")
        freely["into a sandbox from a pod of the job"] = run(where[MATE], f"attempt(lambda: reaches('{mine}', {given.PORT}))")
        return kept, freely

    def _places(self, other: str) -> dict[str, str]:
        """Return what the attempts name."""
        get = self._kube.every
        services = {s["metadata"]["name"]: s["spec"]["clusterIP"] for s in get("/api/v1/services")}
        pods = [p for p in get("/api/v1/pods") if (p["status"].get("podIP"))]
        (node,) = get("/api/v1/nodes")
        operators = [p["status"]["podIP"] for p in pods if p["metadata"]["namespace"] == "lprl-system"]
        (dns,) = (p for p in pods if p["metadata"].get("labels", {}).get("k8s-app") == "kube-dns")
        (head,), (worker, *_) = self._job.pods("head"), self._job.pods("workers")
        api = urlsplit(yaml.safe_load(self._kube.kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
        return {
            "api_service": services["kubernetes"],
            "dns_service": services["kube-dns"],
            "node": self._node(),
            "api_port": str(api.port),
            "kubelet_port": str(node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]),
            "dns_pod": dns["status"]["podIP"],
            "head": head["status"]["podIP"],
            "worker": worker["status"]["podIP"],
            "operators": " ".join(operators),
            "other": other,
            "internet": INTERNET,
            "kubelet": str(self._kube.kubeconfig.parent / "kubelet"),
        }

    def _ready(self, namespace: str, name: str) -> str:
        """Return the address of a pod of ours once it answers under its policies."""

        def answers() -> Any:
            status = (self._kube.get("pods", name, namespace) or {}).get("status") or {}
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))
            return status.get("podIP") if ready else None

        address = str(wait(answers, f"pod {name}", START_S, lambda: self._kube.run("-n", namespace, "describe", "pod", name, check=False)))
        self._enforcer.covers(namespace, name)
        return address

    def _node(self) -> str:
        return str(self._job.pods("head")[0]["status"]["hostIP"])

    def _answer(self) -> None:
        while True:
            try:
                self._server.accept()[0].close()
            except OSError:  # closed
                return

    def _nft(self, script: str) -> None:
        self._kube.run("-f", "-", text=script, program="nft")
