"""Who may talk to a job's pods (each other, and whoever scrapes metrics), who scrapes them, and what keeps drains away."""

from typing import Any

from lprl_api import names
from lprl_api.spec.job import LowPrecisionRLJob
from lprl_operator.resources import metadata, naming
from lprl_operator.resources.settings import RenderSettings

RAY_METRICS_PORT = 8080
RAY_CLUSTER = "ray.io/cluster"
"""Label that KubeRay gives every pod of a RayCluster."""
METRICS_PORT_NAME = "lprl-metrics"


def metrics_port(job: LowPrecisionRLJob, settings: RenderSettings) -> int | None:
    """Port of the driver's Prometheus metrics, None when they are off."""
    return job.spec.tracking.prometheus_port or settings.prometheus_port


def network_policy(job: LowPrecisionRLJob, settings: RenderSettings) -> dict[str, Any]:
    """Ingress from the job's own pods on every port (Ray picks random ones), from anywhere on metric ports; egress is open."""
    mine = {"matchLabels": {names.LABEL_JOB: job.metadata.name}}
    ports = [{"protocol": "TCP", "port": p} for p in sorted({RAY_METRICS_PORT, metrics_port(job, settings) or RAY_METRICS_PORT})]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata.metadata(job, naming.network_policy(job.metadata.name), "network"),
        "spec": {
            "podSelector": {"matchLabels": {names.LABEL_JOB: job.metadata.name}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": mine}]}, {"ports": ports}],
        },
    }


def disruption_budget(job: LowPrecisionRLJob, pods: int, cluster: str) -> dict[str, Any]:
    """No voluntary eviction: losing one pod ends the attempt. A number, since RayClusters have no scale to take a share of."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata.metadata(job, cluster, "network"),
        "spec": {
            "minAvailable": pods,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {names.LABEL_JOB: job.metadata.name, RAY_CLUSTER: cluster}},
        },
    }


def pod_monitor(job: LowPrecisionRLJob) -> dict[str, Any]:
    """Have the Prometheus operator scrape the driver."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": metadata.metadata(job, naming.network_policy(job.metadata.name), "network"),
        "spec": {
            "selector": {"matchLabels": {names.LABEL_JOB: job.metadata.name, names.LABEL_ROLE: "head"}},
            "podTargetLabels": [names.LABEL_JOB, names.LABEL_ATTEMPT],
            "podMetricsEndpoints": [{"port": METRICS_PORT_NAME}],
        },
    }
