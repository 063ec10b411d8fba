"""Worker groups of a RayCluster: the nodes of each side, and where a queue places them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lprl_api import names
from lprl_api.spec.job import LowPrecisionRLJob
from lprl_api.wire.runconfig import Ranks
from lprl_operator.resources import metadata, pods


@dataclass(frozen=True, slots=True)
class Group:
    """One worker group: all its pods are alike."""

    name: str
    role: pods.Role
    replicas: int
    slots: Mapping[str, int]
    """Ray custom resources of one pod."""
    side: str = ""
    """What its pods are labelled as; its name where the side is one group."""
    number: int | None = None
    """Which group of nodes it is of its side, from 0; None where the side is one group."""


def groups(job: LowPrecisionRLJob, ranks: Ranks) -> tuple[Group, ...]:
    """Worker groups of a placement, each side's nodes in those that a queue is to keep together. The replicas sum up to `ranks.nodes`."""
    slots = ranks.slots_per_node
    if ranks.placement == "colocated":
        sides = [Group("workers", "workers", ranks.nodes, {names.TRAINER_SLOT: slots, names.ROLLOUT_SLOT: slots})]
    else:
        sides = [
            Group("trainer", "workers", ranks.trainer_nodes, {names.TRAINER_SLOT: slots}),
            Group("rollout", "rollout", ranks.rollout_nodes, {names.ROLLOUT_SLOT: slots}),
        ]
    topology = job.spec.pod_template.topology
    return tuple(part for side in sides for part in _parts(side, topology.group_nodes if topology is not None else None))


def _parts(side: Group, size: int | None) -> tuple[Group, ...]:
    if size is None or size >= side.replicas:
        return (replace(side, side=side.name),)
    firsts = range(0, side.replicas, size)
    return tuple(
        replace(side, name=f"{side.name}-{n}", replicas=min(size, side.replicas - first), side=side.name, number=n)
        for n, first in enumerate(firsts)
    )


def environment(group: Group) -> tuple[dict[str, Any], ...]:
    """What the ranks of a node are sorted by."""
    return () if group.number is None else (pods.value(names.ENV_NODE_GROUP, str(group.number)),)


def annotations(job: LowPrecisionRLJob, role: pods.Role) -> dict[str, str]:
    """What the job asks of a queue's topology for all workers; nothing where it says something of this group."""
    said = {key for layer in pods.layers(job.spec.pod_template, role) for key in layer.annotations}
    return {} if any(key.startswith(names.KUEUE_POD_SET) for key in said) else metadata.worker_annotations(job)
