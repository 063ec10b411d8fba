"""What the platform decides for every job: images and cluster-wide switches. Read once at start-up, never in pods."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """Settings of the operator (or of the local runner) that rendered objects depend on."""

    image: str = "ghcr.io/lprl/workload:0.1.0"
    """Workload image: Ray, torch and lprl_workload."""
    head_image: str | None = None
    """Image of the Ray head and its driver; default: `image`. It needs no GPU libraries."""
    image_pull_policy: str = "IfNotPresent"
    ray_version: str = "2.60.0"
    """Version of Ray in the images; KubeRay needs at least 2.52 for token auth."""
    network_policy: bool = True
    """Restrict ingress of a job's pods to each other and to metric scrapes."""
    pod_disruption_budget: bool = False
    """Make a PodDisruptionBudget per job, so that drains wait for it."""
    pod_monitor: bool = False
    """Make a PodMonitor per job (needs the Prometheus operator's kinds)."""
    head_cpu: str = "1"
    head_memory: str = "4Gi"
    driver_cpu: str = "1"
    driver_memory: str = "8Gi"
    conversion_cpu: str = "2"
    conversion_memory: str = "4Gi"
    """Requests of a conversion pod when spec.conversion.resources names none; the converter streams, so memory stays small."""
    head_limits: Mapping[str, str] = field(default_factory=dict)
    """Limits of the Ray head container by resource, and of the others below: what a namespace with a quota on limits needs."""
    driver_limits: Mapping[str, str] = field(default_factory=dict)
    worker_limits: Mapping[str, str] = field(default_factory=dict)
    """A limit of workers replaces the planned request, which may be above it."""
    conversion_limits: Mapping[str, str] = field(default_factory=dict)
    prometheus_port: int | None = 9464
    """Port of driver metrics where the job names none; None: off (on a machine many jobs may share)."""
