"""The RayCluster that attempts run in: a CPU head with the driver beside Ray, and one or two groups of workers.

Attempts differ in labels and annotations of the pod templates only: a queue asks for quota anew when a pod's spec changes.

What the driver container needs beside Ray's (found by running it on a real cluster, KubeRay 1.6.2, Ray 2.60):
a shared process namespace (Ray finds its local raylet by its process), /tmp/ray and /dev/shm shared by both containers, and
the auth token from the Secret named like the cluster, since KubeRay injects it into the Ray container only.
The head never restarts in place (restartPolicy Never and the annotation below), so that a lost head is seen as lost.
"""

import json
from collections.abc import Mapping
from typing import Any

from lprl_api import names
from lprl_api.catalog.accelerators import ACCELERATORS
from lprl_api.spec.job import LowPrecisionRLJob
from lprl_api.spec.precision import Rollout, Training
from lprl_api.wire.runconfig import Ranks
from lprl_operator.resources import groups, metadata, naming, needs, network, pods, storage
from lprl_operator.resources.groups import Group
from lprl_operator.resources.needs import WorkerNeeds
from lprl_operator.resources.settings import RenderSettings

KEEP_LOST_HEAD = "ray.io/disable-provisioned-head-restart"
"""Ray custom resources, one unit per GPU (or process on cpu): the driver places actors by them."""
TOLD = {names.ANNOTATION_RECORDED_STEP: names.ENV_RECORDED_STEP, names.ANNOTATION_LIVE_SETTINGS: names.ENV_LIVE_SETTINGS}
"""Annotations that an attempt's driver reads through the downward API, and as which variable: no other pod for another value."""
HOSTNAME = "kubernetes.io/hostname"
HEAD_GRACE_S = 120
"""The driver ends within 75 s of a SIGTERM (workload: launch/departure.py)."""
WORKER_GRACE_S = 5
"""A worker has nothing to save; process 1 of its container does not listen to SIGTERM."""
RAY_OUTLIVES_DRIVER = ("sh", "-c", "while grep -qs '[l]prl_workload' /proc/[0-9]*/cmdline; do sleep 0.2; done; true")
"""Without Ray the driver can make no checkpoint; the pod's processes see each other."""
RAYLET_LEAVES = (
    "sh",
    "-c",
    'for p in /proc/[0-9]*; do read -r c 2>/dev/null <$p/comm && [ "$c" = raylet ] && kill -TERM "${p#/proc/}"; done; true',
)
"""A node that says goodbye is missed at once; one that is killed is only after Ray's health checks ran out."""


def raycluster(
    job: LowPrecisionRLJob,
    ranks: Ranks,
    planned: WorkerNeeds,
    run_config: str,
    attempt: int,
    settings: RenderSettings,
    told: Mapping[str, str],
    name: str | None = None,
) -> dict[str, Any]:
    """Return the RayCluster for an attempt; `run_config` names the ConfigMap with runconfig.json.

    `told`: annotations with what its driver is told of this attempt, see TOLD.
    `name`: of the one that earlier attempts ran in; default: a new one's.
    """
    name = name or naming.cluster(job.metadata.name, attempt)
    meta = metadata.metadata(job, name, "cluster", attempt)
    meta["labels"] |= metadata.queue_labels(job)
    document = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": meta,
        "spec": {
            "rayVersion": settings.ray_version,
            "authOptions": {"mode": "token"},
            "headGroupSpec": {
                # No actor lands on the head: its loss must not take a rank along.
                "rayStartParams": {"num-cpus": "0", "num-gpus": "0", "dashboard-host": "0.0.0.0"},
                "template": _head(job, name, run_config, attempt, settings, told),
            },
            "workerGroupSpecs": [_group(job, name, ranks, planned, group, attempt, settings) for group in groups.groups(job, ranks)],
        },
    }
    meta["annotations"] = {KEEP_LOST_HEAD: "true", names.ANNOTATION_PODS: pods_digest(document), **metadata.queue_annotations(job)}
    return document


def pods_digest(document: Mapping[str, Any]) -> str:
    """Digest of a rendered RayCluster without what says which attempt its pods are of."""
    spec = json.loads(json.dumps(document["spec"]))
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        meta = group["template"]["metadata"]
        meta["labels"].pop(names.LABEL_ATTEMPT, None)
        for key in TOLD:
            meta.get("annotations", {}).pop(key, None)
    return naming.content_hash(spec, 16)


def _head(
    job: LowPrecisionRLJob, cluster: str, run_config: str, attempt: int, settings: RenderSettings, told: Mapping[str, str]
) -> dict[str, Any]:
    ray_volume, ray_mount = storage.scratch("ray", "/tmp/ray")
    shm_volume, shm_mount = storage.shared_memory("1Gi")
    config_volume, config_mount = storage.config(run_config)
    token_volume, token_mount = _token()
    port = network.metrics_port(job, settings)
    ray = pods.Container(
        name="ray-head",
        resources=needs.head(job.spec, settings),
        mounts=(ray_mount, shm_mount),
        ports=({"name": "gcs-server", "containerPort": 6379}, {"name": "dashboard", "containerPort": 8265}),
        pre_stop=RAY_OUTLIVES_DRIVER,
    )
    driver = pods.Container(
        name="driver",
        args=(
            *("python", "-m", "lprl_workload", "train"),
            *("--config", f"{storage.CONFIG_FOLDER}/{names.RUN_CONFIG_KEY}"),
        ),
        env=(*_driver_env(cluster), *_claims_env(job), *tracking_env(job)),
        resources=needs.driver(job.spec, settings),
        mounts=(ray_mount, shm_mount, config_mount, token_mount, *storage.user_mounts(job.spec)),
        ports=({"name": network.METRICS_PORT_NAME, "containerPort": port},) if port is not None else (),
    )
    pod = pods.Pod(
        role="head",
        containers=(ray, driver),
        labels=metadata.labels(job, "head", attempt),
        annotations=dict(told),
        volumes=(ray_volume, shm_volume, config_volume, token_volume, *storage.user_volumes(job.spec)),
        extra={"serviceAccountName": naming.driver_account(cluster), "shareProcessNamespace": True},
        grace_seconds=HEAD_GRACE_S,
    )
    return pods.pod_template(pod, job.spec.pod_template, settings)


def attempt_env() -> dict[str, Any]:
    """The attempt's number, as the pod's label says it."""
    return pods.field_of_pod(names.ENV_ATTEMPT, f"metadata.labels['{names.LABEL_ATTEMPT}']")


def _driver_env(cluster: str) -> tuple[dict[str, Any], ...]:
    secret = naming.auth_secret(cluster)
    token = {"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": "auth_token"}}}
    namespace = pods.field_of_pod("POD_NAMESPACE", "metadata.namespace")
    return (
        attempt_env(),
        *(pods.field_of_pod(variable, f"metadata.annotations['{key}']") for key, variable in TOLD.items()),
        pods.value("RAY_ADDRESS", "127.0.0.1:6379"),
        pods.value("RAY_AUTH_MODE", "token"),
        pods.value(names.ENV_PROMETHEUS_ADDRESS, "0.0.0.0"),  # scrapers come from other pods; the NetworkPolicy names the port
        token,
        namespace,
    )


def _claims_env(job: LowPrecisionRLJob) -> tuple[dict[str, Any], ...]:
    """The driver's pod, which the claims it makes belong to and go with."""
    if all(tool.sandbox is None for tool in job.spec.episode.tools):
        return ()
    return (pods.field_of_pod(names.ENV_POD_NAME, "metadata.name"), pods.field_of_pod(names.ENV_POD_UID, "metadata.uid"))


def tracking_env(job: LowPrecisionRLJob) -> tuple[dict[str, Any], ...]:
    """Credentials of trackers, of a remote reward and of tools, by reference."""
    tracking, reward = job.spec.tracking, job.spec.data.reward
    found = []
    if tracking.mlflow is not None and tracking.mlflow.token_secret is not None:
        found.append(pods.secret("MLFLOW_TRACKING_TOKEN", tracking.mlflow.token_secret))
    if tracking.wandb is not None and tracking.wandb.api_key_secret is not None:
        found.append(pods.secret("WANDB_API_KEY", tracking.wandb.api_key_secret))
    if reward.headers_secret is not None:
        found.append(pods.secret(names.ENV_REWARD_AUTHORIZATION, reward.headers_secret))
    for place, tool in enumerate(job.spec.episode.tools):
        if tool.headers_secret is not None:
            found.append(pods.secret(names.tool_authorization(place), tool.headers_secret))
    return tuple(found)


def _token() -> tuple[dict[str, Any], dict[str, Any]]:
    """The service-account token where clients expect it, in the driver container only."""
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    mount = {"name": "api-token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True}
    return {"name": "api-token", "projected": {"sources": sources}}, mount


def _group(
    job: LowPrecisionRLJob, cluster: str, ranks: Ranks, planned: WorkerNeeds, group: Group, attempt: int, settings: RenderSettings
) -> dict[str, Any]:
    start = {"resources": json.dumps(json.dumps(dict(group.slots)))}  # KubeRay puts it on a shell's command line as it is
    if ranks.accelerator == "cpu":
        start["num-cpus"] = str(ranks.slots_per_node)
    return {
        "groupName": group.name,
        "replicas": group.replicas,
        "minReplicas": group.replicas,
        "maxReplicas": group.replicas,
        "rayStartParams": start,
        "template": _worker(job, cluster, ranks, planned, group, attempt, settings),
    }


def _worker(
    job: LowPrecisionRLJob, cluster: str, ranks: Ranks, planned: WorkerNeeds, group: Group, attempt: int, settings: RenderSettings
) -> dict[str, Any]:
    ray_volume, ray_mount = storage.scratch("ray", "/tmp/ray")
    shm = job.spec.pod_template.shared_memory or (str(planned.shared_memory_bytes) if planned.shared_memory_bytes else None)
    shm_volume, shm_mount = storage.shared_memory(shm)
    rdma = job.spec.pod_template.rdma
    container = pods.Container(
        name="ray-worker",
        env=(*worker_env(job, ranks, trains=names.TRAINER_SLOT in group.slots), *groups.environment(group), *tracking_env(job)),
        resources=needs.worker(job.spec, ranks, planned, group.role, settings),
        mounts=(ray_mount, shm_mount, *storage.user_mounts(job.spec)),
        capabilities=("IPC_LOCK",) if rdma is not None else (),
        pre_stop=RAYLET_LEAVES,
    )
    pod = pods.Pod(
        role=group.role,
        containers=(container,),
        labels=metadata.labels(job, group.side, attempt),
        annotations=groups.annotations(job, group.role),
        volumes=(ray_volume, shm_volume, *storage.user_volumes(job.spec)),
        extra=_placement(job, cluster, ranks),
        grace_seconds=WORKER_GRACE_S,
    )
    return pods.pod_template(pod, job.spec.pod_template, settings)


def worker_env(job: LowPrecisionRLJob, ranks: Ranks, trains: bool) -> tuple[dict[str, Any], ...]:
    """Environment of worker processes that must be set before libraries are imported."""
    found = [attempt_env()]
    if ranks.accelerator == "cpu":
        return tuple(found)
    found.append(pods.value("NCCL_DEBUG", "WARN"))
    if trains:  # orders a trainer's collectives before its kernels; an engine's streams would only wait for each other
        found.append(pods.value("CUDA_DEVICE_MAX_CONNECTIONS", "1"))
    if job.spec.pod_template.rdma is not None:
        found += [pods.value("NCCL_IB_DISABLE", "0"), pods.value("NCCL_NET_GDR_LEVEL", "PHB")]
    if job.spec.precision.training == Training.FP8:
        # Hopper wants FP32 block scales; Blackwell runs block FP8 as MXFP8 and takes powers of two only.
        fp32 = not ACCELERATORS[ranks.accelerator].is_blackwell
        found.append(pods.value("NVTE_FP8_BLOCK_SCALING_FP32_SCALES", "1" if fp32 else "0"))
    precision = job.spec.precision
    if job.spec.backends.rollout == "sglang" and precision.rollout == Rollout.FP8 and precision.fp8.activations == "none":
        # Block FP8 says nothing of activations in config.json: this switch makes SGLang take its weight-only kernels.
        found.append(pods.value("SGLANG_FORCE_FP8_MARLIN", "1"))
    return tuple(found)


def _placement(job: LowPrecisionRLJob, cluster: str, ranks: Ranks) -> dict[str, Any]:
    """One worker a node (a GPU pod wants a whole one), and all within one topology domain where a key is given.

    By the RayCluster: what another one left on a dead node must not draw the new pods into its domain.
    """
    mine = {names.LABEL_JOB: job.metadata.name, network.RAY_CLUSTER: cluster}
    workers = {
        "matchLabels": mine,
        "matchExpressions": [{"key": names.LABEL_ROLE, "operator": "In", "values": ["workers", "trainer", "rollout"]}],
    }
    found: dict[str, Any] = {}
    if ranks.accelerator == "cpu":
        spread = {"maxSkew": 1, "topologyKey": HOSTNAME, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": workers}
        found["topologySpreadConstraints"] = [spread]
    else:
        apart = {"topologyKey": HOSTNAME, "labelSelector": workers}
        found["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}}
    if job.spec.pod_template.topology_key is not None:
        together = {"topologyKey": job.spec.pod_template.topology_key, "labelSelector": {"matchLabels": dict(mine)}}
        affinity = found.setdefault("affinity", {})
        affinity["podAffinity"] = {"requiredDuringSchedulingIgnoredDuringExecution": [together]}
    return found
