"""What lists told: why Jobs have no pods (podless.py), what queues say (queues.py). Thread-safe: replaced as a whole."""

from collections.abc import Mapping
from dataclasses import replace

from lprl_operator.decide.observed import ClusterState

Refusal = tuple[str, str]
"""When and why."""
NONE: Refusal = ("", "")


class QueueWords:
    """What queues say of what they hold (queues.py), by its uid."""

    def __init__(self) -> None:
        self._found: dict[str, Mapping[str, str]] = {}
        self.absent = False
        """Whether there is no Kueue: labels that ask for a queue hold nothing then."""

    def told(self, cluster: ClusterState) -> ClusterState:
        """Return a RayCluster with what its queue says, and whether there is one."""
        queue = self.of(cluster.uid) if cluster.suspended else ""
        return replace(cluster, queue=queue, queued=cluster.queued and not self.absent)

    def replace(self, namespace: str, found: Mapping[str, str]) -> None:
        """Take over what a list of a namespace found."""
        others = {name: kept for name, kept in self._found.items() if name != namespace}
        self._found = {**others, namespace: found} if found else others

    def of(self, uid: str) -> str:
        """What is said of an object; empty when nothing is."""
        return next((found[uid] for found in self._found.values() if uid in found), "")


class RefusedPods:
    """Refusals by uid of the Job."""

    def __init__(self) -> None:
        self._found: dict[str, Mapping[str, Refusal]] = {}

    def replace(self, namespace: str, found: Mapping[str, Refusal]) -> None:
        """Take over what a list of a namespace found: what is not in it is over."""
        others = {name: kept for name, kept in self._found.items() if name != namespace}
        self._found = {**others, namespace: found} if found else others

    def of(self, uid: str) -> Refusal:
        """The newest refusal of a pod of a Job."""
        return next((found[uid] for found in self._found.values() if uid in found), NONE)
