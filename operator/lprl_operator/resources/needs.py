"""CPU, memory and devices of every container: planned, then the operator's limits, then the job's own, the strongest last.

A limit from a stronger side drops a request from a weaker one (Kubernetes then takes the limit), so that none is above its limit.
"""

from dataclasses import dataclass

from lprl_api.spec.job import LowPrecisionRLJobSpec
from lprl_api.spec.pod_settings import Resources, stacked
from lprl_api.wire.runconfig import Ranks
from lprl_operator.resources.settings import RenderSettings

GPU_RESOURCE = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True)
class WorkerNeeds:
    """Planned host resources of one worker pod; None leaves a quantity to the user's podTemplate."""

    cpu: str | None = None
    memory_bytes: int | None = None
    shared_memory_bytes: int | None = None


def _own(spec: LowPrecisionRLJobSpec, container: str) -> tuple[Resources, ...]:
    return tuple(resources for _, resources in spec.pod_template.own_resources(container))


def head(spec: LowPrecisionRLJobSpec, settings: RenderSettings) -> Resources:
    """Resources of Ray on the head."""
    ours = Resources(requests={"cpu": settings.head_cpu, "memory": settings.head_memory}, limits=dict(settings.head_limits))
    return stacked(ours, _own(spec, "ray-head"))


def driver(spec: LowPrecisionRLJobSpec, settings: RenderSettings) -> Resources:
    """Resources of the driver beside it."""
    ours = Resources(requests={"cpu": settings.driver_cpu, "memory": settings.driver_memory}, limits=dict(settings.driver_limits))
    return stacked(ours, _own(spec, "driver"))


def worker(spec: LowPrecisionRLJobSpec, ranks: Ranks, planned: WorkerNeeds, role: str, settings: RenderSettings) -> Resources:
    """Resources of a worker, of role workers or rollout; its devices are the plan's alone."""
    requests = {"cpu": planned.cpu or str(ranks.slots_per_node)}
    devices = {}
    if planned.memory_bytes:
        requests["memory"] = str(planned.memory_bytes)
    if ranks.accelerator != "cpu":
        devices[GPU_RESOURCE] = str(ranks.slots_per_node)
    if spec.pod_template.rdma is not None:
        devices[spec.pod_template.rdma.resource] = str(spec.pod_template.rdma.count)
    ours = Resources(requests=requests, limits=devices)
    return stacked(ours, (Resources(limits=dict(settings.worker_limits)), *_own(spec, role)))


def conversion(spec: LowPrecisionRLJobSpec, settings: RenderSettings) -> Resources:
    """Resources of an inspect, conversion or finalise container, init containers among them."""
    requests = {"cpu": settings.conversion_cpu, "memory": settings.conversion_memory}
    ours = Resources(requests=requests, limits=dict(settings.conversion_limits))
    everybody, *own = _own(spec, "conversion")
    return stacked(ours, (everybody, spec.conversion.resources, *own))
