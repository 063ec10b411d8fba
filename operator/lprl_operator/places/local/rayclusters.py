"""What KubeRay does: a head and worker groups, here as Ray nodes on loopback addresses of this machine."""

import hashlib
import math
import re
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lprl_api import names
from lprl_api.names import ANNOTATION_HELD, ANNOTATION_MADE_FROM, ANNOTATION_PODS, LABEL_ATTEMPT, LABEL_JOB
from lprl_operator.decide.observed import ClusterState, PodState
from lprl_operator.places.local import ray_node
from lprl_operator.places.local.environment import write_secret
from lprl_operator.places.local.folders import Folders
from lprl_operator.places.local.pods import LocalPod, PodOrder, state_of
from lprl_operator.places.local.ports import free_port, listens
from lprl_operator.places.local.store import ObjectStore, controller_uid, created_at
from lprl_operator.resources import naming

OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""Per Ray node; rollouts and weights of the small models this adapter is for fit, larger objects spill to disk."""
WORKER_RETRY_SECONDS = 1.0
KEPT_LOG_BYTES = 4 * 1024 * 1024
_KEPT_LOGS = re.compile(r"(worker-|raylet|gcs_server).*\.(err|out)$")
RAY_ENV = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_SCHEDULER_EVENTS": "0",
    # Agents that are slow to start on a busy machine must not take the node down (ray_node.py is the other half).
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_memory_monitor_refresh_ms": "0",
    # 15 by default: beside anything else that computes, ranks and engines would stand still, and be taken for hung.
    "RAY_worker_niceness": "0",
    # All nodes are this machine, so actors meet on its loopback interface, whatever its name resolves to.
    names.ENV_HOST_ADDRESS: "127.0.0.1",
    **({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}),
    "RAY_prestart_worker_first_driver": "0",
    # Its exporter answers anyone on every interface; what is left of Ray's ports asks for the cluster's token.
    "RAY_enable_metrics_collection": "0",
}


def host_of(uid: str, number: int) -> str:
    """Return the loopback address of a node: one each, so that Ray tells its nodes apart by address."""
    if sys.platform != "linux":
        return "127.0.0.1"
    digest = hashlib.sha256(uid.encode()).digest()
    return f"127.{64 + digest[0] % 128}.{digest[1]}.{number + 1}"


def cpus(amount: str) -> int:
    """Return whole CPUs of a Kubernetes quantity, rounded up."""
    return math.ceil(float(amount[:-1]) / 1000) if amount.endswith("m") else math.ceil(float(amount))


def start_params(params: Mapping[str, str], drop: Sequence[str]) -> list[str]:
    """Return rayStartParams as flags; values pass through a shell in production, so quotes are removed here too."""
    found: list[str] = []
    for key, value in params.items():
        if key in drop or value == "false":
            continue
        found.append(f"--{key}" if value == "true" else f"--{key}={''.join(shlex.split(value))}")
    return found


def stem(cluster: Mapping[str, Any]) -> str:
    """Return what names of pods and logs begin with: each attempt's logs stay, so they are told apart by its number."""
    meta = cluster["metadata"]
    job, attempt = meta.get("labels", {}).get(LABEL_JOB), meta.get("labels", {}).get(LABEL_ATTEMPT)
    return naming.cluster(job, int(attempt)) if job and attempt else str(meta["name"])


class RayClusterController:
    """Runs RayClusters. Lost workers come back; a lost head does not (restartPolicy Never, head restart disabled)."""

    def __init__(self, store: ObjectStore, folders: Folders, start: Callable[[PodOrder], LocalPod]) -> None:
        self._store = store
        self._folders = folders
        self._start = start
        self._ready: set[str] = set()

    def step(self, cluster: dict[str, Any], pods: Sequence[LocalPod]) -> None:
        """Bring one RayCluster further."""
        if "deletionTimestamp" in cluster["metadata"]:
            self._delete(cluster, pods)
            return
        if cluster["spec"].get("suspend") or cluster.get("status", {}).get("suspended"):
            self._suspend(cluster, pods)
            return
        for pod in pods:
            pod.step()
        heads = [p for p in pods if p.record["role"] == "head"]
        if not heads:
            self._start_head(cluster)
        elif self.is_ready(heads[0]):
            for group in cluster["spec"].get("workerGroupSpecs", ()):
                self._keep_workers(cluster, group, pods)

    def is_ready(self, pod: LocalPod) -> bool:
        """Whether a node's raylet answers and its containers run (a driver that ended makes its pod not ready)."""
        if any(c.started_at is None or c.ended() is not None for c in pod.main):
            return False
        if pod.name not in self._ready and listens(pod.record["host"], pod.record["port"]):
            self._ready.add(pod.name)
        return pod.name in self._ready

    def _suspend(self, cluster: dict[str, Any], pods: Sequence[LocalPod]) -> None:
        """End all pods, then wait to be let go, as KubeRay does: it finishes a suspension that was taken back."""
        for pod in pods:
            pod.delete()
        if not all(pod.ended for pod in pods):
            return
        suspended = cluster.get("status", {}).get("suspended", False)
        if suspended and not cluster["spec"].get("suspend"):
            self._store.replace({**cluster, "status": {}})
        elif not suspended:
            self.release(cluster)
            for pod in pods:
                pod.forget()
            self._store.replace({**cluster, "status": {"suspended": True}})

    def _delete(self, cluster: dict[str, Any], pods: Sequence[LocalPod]) -> None:
        for pod in pods:
            pod.delete()
        if not all(pod.ended for pod in pods):
            return
        self.release(cluster)
        for pod in pods:
            pod.forget()
        self._store.remove("RayCluster", cluster["metadata"]["name"])

    def release(self, cluster: Mapping[str, Any]) -> None:
        """Keep Ray's logs and remove its temporary folder, once no process of the cluster runs."""
        temp = self._folders.ray_temp(cluster["metadata"]["uid"])
        keep_ray_logs(temp, self._folders.state / "ray-logs" / stem(cluster))
        shutil.rmtree(temp, ignore_errors=True)

    def _start_head(self, cluster: dict[str, Any]) -> None:
        meta, group = cluster["metadata"], cluster["spec"]["headGroupSpec"]
        if cluster.get("status", {}).get("headStarted"):
            return
        token, port, host = secrets.token_hex(32), free_port(), host_of(meta["uid"], 0)
        write_secret(self._folders, meta["name"][-50:], "auth_token", token)
        cluster["status"] = {"headStarted": True, "address": f"{host}:{port}"}
        self._store.replace(cluster)
        flags = ["--head", f"--port={port}", "--no-monitor"]
        flags += start_params(group.get("rayStartParams", {}), ("port", "dashboard-host", "dashboard-port", "block"))
        self._start_node(cluster, group["template"], f"{stem(cluster)}-head", "head", 0, flags)

    def _keep_workers(self, cluster: dict[str, Any], group: Mapping[str, Any], pods: Sequence[LocalPod]) -> None:
        name = f"{stem(cluster)}-{group['groupName']}-worker"
        number = 1 + sum(int(g["replicas"]) for g in _groups_before(cluster, group["groupName"]))
        for index in range(int(group["replicas"]) * int(group.get("numOfHosts", 1))):
            mine = [p for p in pods if p.name.startswith(f"{name}-{index}-")]
            if any(not p.ended for p in mine):
                continue
            if mine and time.time() < max(p.finished_at() for p in mine) + WORKER_RETRY_SECONDS:
                continue
            for pod in mine:
                pod.forget()
            generation = 1 + max((int(p.name.rsplit("-", 1)[1]) for p in mine), default=-1)
            params = dict(group.get("rayStartParams", {}))
            if "num-cpus" not in params:
                params["num-cpus"] = str(_container_cpus(group["template"]))
            flags = [f"--address={cluster['status']['address']}", *start_params(params, ("address", "block", "dashboard-host"))]
            self._start_node(cluster, group["template"], f"{name}-{index}-{generation}", group["groupName"], number + index, flags)

    def _start_node(
        self, cluster: Mapping[str, Any], template: Mapping[str, Any], name: str, role: str, number: int, flags: list[str]
    ) -> None:
        meta = cluster["metadata"]
        host, port = host_of(meta["uid"], number), free_port()
        # One folder a node, as every pod has its own /tmp/ray: nodes that start together in one folder choose equal socket names.
        # Ray opens its own folder to everyone, so the one above it is this user's alone.
        self._folders.ray_temp(meta["uid"]).mkdir(mode=0o700, exist_ok=True)
        temp = self._folders.ray_temp(meta["uid"]) / f"{number}.{name.rsplit('-', 1)[-1]}"
        temp.mkdir(exist_ok=True)
        words = ["--block", *flags, f"--node-ip-address={host}", f"--node-manager-port={port}", f"--temp-dir={temp}"]
        words += [f"--object-store-memory={OBJECT_STORE_BYTES}", "--include-log-monitor=false", "--disable-usage-stats"]
        secret = self._folders.secrets / meta["name"][-50:] / "auth_token"
        env = {**RAY_ENV, "RAY_AUTH_TOKEN": secret.read_text(), "RAY_ADDRESS": cluster["status"]["address"], "RAY_TMPDIR": str(temp)}
        env["RAY_CLUSTER_NAME"] = meta["name"]
        order = PodOrder(
            name=name,
            owner=f"RayCluster/{meta['uid']}",
            template=template,
            namespace=meta.get("namespace", "default"),
            index=number,
            role=role,
            env=env,
            commands={template["spec"]["containers"][0]["name"]: ray_node.line(*words)},
            host=host,
        )
        pod = self._start(order)
        pod.update(host=host, port=port, temp=str(temp))


def _groups_before(cluster: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    groups = cluster["spec"].get("workerGroupSpecs", ())
    return list(groups[: [g["groupName"] for g in groups].index(name)])


def _container_cpus(template: Mapping[str, Any]) -> int:
    resources = template["spec"]["containers"][0].get("resources", {})
    amount = resources.get("limits", {}).get("cpu") or resources.get("requests", {}).get("cpu") or "1"
    return cpus(str(amount))


def keep_ray_logs(temp: Path, target: Path) -> None:
    """Copy what actors and Ray's own processes logged; the newest megabytes of each file."""
    for path in sorted(temp.glob("*/session_2*/logs/*")):
        if path.is_file() and not path.is_symlink() and path.stat().st_size and _KEPT_LOGS.search(path.name):
            target.mkdir(parents=True, exist_ok=True)
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - KEPT_LOG_BYTES))
                (target / f"{path.relative_to(temp).parts[0]}-{path.name}").write_bytes(file.read())


def cluster_state(cluster: Mapping[str, Any], pods: Sequence[LocalPod], ready: Callable[[LocalPod], bool]) -> ClusterState:
    """Return a RayCluster as decisions see it."""
    meta = cluster["metadata"]
    head = next((p for p in pods if p.record["role"] == "head"), None)
    workers = [p for p in pods if p.record["role"] != "head"]
    groups = cluster["spec"].get("workerGroupSpecs", ())
    wanted = sum(int(g["replicas"]) * int(g.get("numOfHosts", 1)) for g in groups)
    ready_workers = sum(1 for p in workers if ready(p))
    told, emptied = bool(cluster["spec"].get("suspend", False)), bool(cluster.get("status", {}).get("suspended"))
    notes = meta.get("annotations", {})
    return ClusterState(
        attempt=int(meta["labels"][LABEL_ATTEMPT]),
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        owner_uids=frozenset({controller} if (controller := controller_uid(cluster)) else ()),
        created_at=created_at(cluster),
        deleting="deletionTimestamp" in meta,
        suspended=told or emptied,
        told_to_suspend=told,
        emptied=emptied,
        held=bool(notes.get(ANNOTATION_HELD)),
        pods=notes.get(ANNOTATION_PODS, ""),
        template_attempt=int(meta["labels"][LABEL_ATTEMPT]),
        head_ready=head is not None and ready(head),
        head_reason=_head_reason(head, ready),
        provisioned=ready_workers >= wanted and head is not None and ready(head),
        ready_workers=ready_workers,
        wanted_workers=wanted,
        made_from=notes.get(ANNOTATION_MADE_FROM, ""),
    )


def _head_reason(head: LocalPod | None, ready: Callable[[LocalPod], bool]) -> str:
    if head is None:
        return "HeadPodNotFound"
    if ready(head):
        return "HeadPodRunningAndReady"
    ended = head.last_exit()
    return "ContainersNotReady" if ended is None else "Completed" if ended[0].code == 0 else "Error"


def pod_state(pod: LocalPod, attempt: int, ready: Callable[[LocalPod], bool]) -> PodState:
    """Return a Ray pod as decisions see it; of its cluster's attempt where its labels name none."""
    states = [state_of(c) for c in pod.main]
    is_head = pod.record["role"] == "head"
    return PodState(
        name=pod.name,
        uid=str(pod.record["uid"]),
        attempt=int(pod.record["labels"].get(LABEL_ATTEMPT, attempt)),
        role="head" if is_head else "worker",
        phase=pod.phase(),
        ready=ready(pod),
        deleting=pod.deleting,
        node="local",
        ray=states[0],
        driver=states[1] if is_head and len(states) > 1 else None,
        disruption=pod.disruption(),
    )
