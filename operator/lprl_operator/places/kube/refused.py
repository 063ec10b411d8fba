"""What lists told: why Jobs have no pods (podless.py), what queues say (queues.py). Thread-safe: replaced as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from lprl_operator.decide.observed import ClusterState, JobState

Refusal = tuple[str, str]
"""When and why."""
NONE: Refusal = ("", "")


@dataclass(frozen=True, slots=True)
class Said:
    """What a queue says of one thing."""

    words: str = ""
    priority: int | None = None
    ranks: Mapping[str, int] = field(default_factory=dict)
    """Of the priority classes that its namespace uses."""


NOTHING = Said()


class QueueWords:
    """What queues say of what they hold (queues.py), by its uid."""

    def __init__(self) -> None:
        self._found: dict[str, Mapping[str, Said]] = {}
        self.absent = False
        """Whether there is no Kueue: labels that ask for a queue hold nothing then."""

    def told(self, cluster: ClusterState) -> ClusterState:
        """Return a RayCluster with what its queue says, and whether there is one."""
        queue = self.of(cluster.uid).words if cluster.suspended else ""
        return replace(cluster, queue=queue, queued=cluster.queued and not self.absent)

    def told_job(self, job: JobState) -> JobState:
        """Return a Job with what its queue says while it holds it."""
        if not job.suspended:
            return job
        found = self.of(job.uid)
        return replace(job, queue=found.words, priority=found.priority, ranks=found.ranks)

    def replace(self, namespace: str, found: Mapping[str, Said]) -> None:
        """Take over what a list of a namespace found."""
        others = {name: kept for name, kept in self._found.items() if name != namespace}
        self._found = {**others, namespace: found} if found else others

    def of(self, uid: str) -> Said:
        """What is said of an object."""
        return next((found[uid] for found in self._found.values() if uid in found), NOTHING)


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
