"""Settings of pods: images, placement, environment, resources."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from lprl_api.base import Contract, Nodes, PositiveInt
from lprl_api.kube_names import (
    DEVICE_PATTERN,
    FIELD_PATTERN,
    VARIABLE_PATTERN,
    WORD_PATTERN,
    DataKey,
    GateName,
    LabelKey,
    LabelValue,
    ObjectName,
    ReferenceName,
)
from lprl_api.spec.quantity import Quantity
from lprl_api.spec.scheduling import Affinity, Toleration
from lprl_api.spec.sources import SecretKey

Word = Annotated[str, Field(min_length=1, max_length=512, pattern=WORD_PATTERN)]


class Resources(Contract):
    """Kubernetes resource requests and limits."""

    requests: dict[LabelKey, Quantity] = Field({}, description="Requested quantities by resource name. Default none.")
    limits: dict[LabelKey, Quantity] = Field({}, description="Limits by resource name. Default none.")

    def over(self, weaker: "Resources") -> "Resources":
        """Return these on top of weaker ones: a limit drops a request from below, which might be above it; devices stay as they are."""
        requests, limits = dict(weaker.requests), dict(weaker.limits)
        for name, quantity in self.limits.items():
            if "/" in name and name in weaker.limits:
                continue
            limits[name] = quantity
            requests.pop(name, None)
        requests.update({n: q for n, q in self.requests.items() if not ("/" in n and n in weaker.limits)})
        # Each was checked already, or is known to be wrong (partial.py).
        return Resources.model_construct(requests=dict(sorted(requests.items())), limits=dict(sorted(limits.items())))


def stacked(weakest: Resources, layers: Iterable[Resources]) -> Resources:
    """Return resources with layers on top, the strongest last."""
    for layer in layers:
        weakest = layer.over(weakest)
    return weakest


class KeyReference(Contract):
    """A key of a Secret or ConfigMap."""

    name: ObjectName = Field(description="Its name.")
    key: DataKey = Field(description="Key inside.")
    optional: bool = Field(False, description="Go without it when it is not there. Default false.")


class FieldReference(Contract):
    """A field of the pod."""

    field_path: Annotated[str, Field(max_length=512, pattern=FIELD_PATTERN)] = Field(description="Such as metadata.name or status.podIP.")
    api_version: Literal["v1"] = Field("v1", description="Default v1.")


class EnvSource(Contract):
    """Where the value of a variable comes from."""

    secret_key_ref: KeyReference | None = Field(None, description="Key of a Secret. Default none.")
    config_map_key_ref: KeyReference | None = Field(None, description="Key of a ConfigMap. Default none.")
    field_ref: FieldReference | None = Field(None, description="Field of the pod. Default none.")


class EnvVar(Contract):
    """One environment variable: a value, a Secret key, or Kubernetes' valueFrom."""

    name: Annotated[str, Field(max_length=253, pattern=VARIABLE_PATTERN)] = Field(description="Name.")
    value: str | None = Field(None, max_length=32768, description="Value; not for secrets. Default none.")
    secret: SecretKey | None = Field(None, description="Secret key to take the value from. Default none.")
    value_from: EnvSource | None = Field(None, description="As in a pod. Default none.")


class PodSettings(Contract):
    """Settings merged into a pod template; lists are appended, mappings merged, nothing of ours replaced."""

    image: Word | None = Field(None, description="Workload image. Default: the operator's setting.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(None, description="Default IfNotPresent.")
    image_pull_secrets: Annotated[tuple[ReferenceName, ...], Field(max_length=16)] = Field(
        (), description="Pull secrets: names, or [{name: x}]. Default none."
    )
    labels: dict[LabelKey, LabelValue] = Field({}, description="Extra pod labels. Default none.")
    annotations: dict[LabelKey, Annotated[str, Field(max_length=32768)]] = Field({}, description="Extra pod annotations. Default none.")
    node_selector: dict[LabelKey, LabelValue] = Field({}, description="Node selector. Default none.")
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=64)] = Field((), description="Kubernetes tolerations. Default none.")
    affinity: Affinity | None = Field(None, description="Kubernetes affinity. Default none.")
    env: Annotated[tuple[EnvVar, ...], Field(max_length=256)] = Field((), description="Extra environment variables. Default none.")
    resources: Resources = Field(Resources(), description="Of each container in place of the planned ones. Default none.")
    priority_class_name: ObjectName | None = Field(None, description="Priority class. Default none.")
    scheduler_name: Word | None = Field(None, description="Scheduler. Default: the cluster's.")
    scheduling_gates: Annotated[tuple[GateName, ...], Field(max_length=16)] = Field(
        (), description="Scheduling gates: names, or [{name: x}]. Default none."
    )


class DriverSettings(Contract):
    """What the driver, a container of the head pod, has of its own."""

    resources: Resources = Field(Resources(), description="Of the driver's container. Default: podTemplate.resources.")


class Rdma(Contract):
    """RDMA networking; needs Pod Security level `privileged` or an exemption for IPC_LOCK."""

    resource: Annotated[str, Field(max_length=317, pattern=DEVICE_PATTERN)] = Field(
        description="Extended resource, such as rdma/hca_shared_devices_a."
    )
    count: PositiveInt = Field(1, description="Devices per worker pod. Default 1.")


class NodeTopology(Contract):
    """Where a queue places workers in the topology of its nodes; one of required and preferred."""

    required: LabelKey | None = Field(
        None,
        description="Node label of a level, such as a rack's: nodes of a group are in one domain of it, or the job waits. Default none.",
    )
    preferred: LabelKey | None = Field(
        None, description="The same where there is room; else the queue takes the next wider level. Default none."
    )
    group_nodes: Nodes | None = Field(
        None,
        description="Nodes of a group, count; ranks are numbered group by group. Default: all trainer nodes are one group, all rollout "
        "nodes of a split placement another.",
    )

    @property
    def level(self) -> str:
        """The node label."""
        return self.required or self.preferred or ""


class PodTemplate(PodSettings):
    """Settings for all pods, and per role on top. `resources` here are those of every container without its own."""

    head: PodSettings | None = Field(None, description="Only the head pod; its resources are the Ray head's. Default none.")
    driver: DriverSettings | None = Field(None, description="Only the driver, beside Ray in the head pod. Default none.")
    workers: PodSettings | None = Field(None, description="Only Ray workers. Default none.")
    rollout: PodSettings | None = Field(None, description="Only rollout workers of a split placement. Default none.")
    conversion: PodSettings | None = Field(None, description="Only inspect, conversion and finalise pods. Default none.")
    rdma: Rdma | None = Field(None, description="RDMA devices for workers. Default none.")
    shared_memory: Quantity | None = Field(None, description="Size of /dev/shm. Default: planned.")
    topology_key: LabelKey | None = Field(
        None, description="Node label all workers are kept together by, where no queue places them: by pod affinity. Default none."
    )
    topology: NodeTopology | None = Field(None, description="Where a queue (Kueue, KAI) places workers. Default none.")

    def own_resources(self, container: str) -> tuple[tuple[str, Resources], ...]:
        """(path below spec, resources) of a container, weakest first: ray-head, driver, workers, rollout or conversion."""
        named: dict[str, tuple[tuple[str, PodSettings | DriverSettings | None], ...]] = {
            "ray-head": (("head", self.head),),
            "driver": (("driver", self.driver),),
            "workers": (("workers", self.workers),),
            "rollout": (("workers", self.workers), ("rollout", self.rollout)),
            "conversion": (("conversion", self.conversion),),
        }
        own = tuple((f"podTemplate.{name}.resources", s.resources) for name, s in named[container] if s is not None)
        return (("podTemplate.resources", self.resources), *own)
