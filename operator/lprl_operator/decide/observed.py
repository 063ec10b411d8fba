"""Observed: one frozen snapshot of everything outside the job's own document that a decision may read.

An adapter fills it (from its caches, or live when asked); nothing here interprets it. All times are aware UTC datetimes.

Worked example, attempt 2 running after attempt 1 lost its head and one of its pods is stuck on a dead node:

    Observed(
        inspect=JobState("toy-inspect", ..., finished="Complete", exits=(Exit(0, 0, "Completed", '{"shape": ...}'),)),
        jobs={"lprl-convert-3f2a...": JobState(..., completions=16, completed=frozenset({0, 1, 5}))},
        clusters=(ClusterState(attempt=2, name="toy-a2", head_ready=True, ready_workers=1, wanted_workers=2, ...),),
        pods=(PodState("toy-a2-head-x", attempt=2, role="head", driver=ContainerState("running"), ...),
              PodState("toy-a1-worker-y", attempt=1, role="worker", deleting=True, unreachable_since=..., ...)),
        progress='{"attempt": 2, "sequence": 7, ...}', control='{"suspend": false, ...}',
    )
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple


class Key(NamedTuple):
    """Identity of a job: what a work queue is keyed by."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """Identity of a child object."""

    api_version: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Exit:
    """A terminated container of one Job pod: the newest one of its index."""

    index: int
    """Completion index; 0 for a Job that is not Indexed."""
    exit_code: int
    reason: str = ""
    """Kubernetes reason: Completed, Error, OOMKilled, ..."""
    message: str = ""
    """Termination message (JSON of `lprl_api.wire.progress.Termination`, or of an Inspection for the inspect Job)."""


@dataclass(frozen=True, slots=True)
class JobState:
    """A batch/v1 Job: inspect, convert or finalise."""

    name: str
    uid: str
    resource_version: str
    owner_uids: frozenset[str]
    """UID of its controller where it has one (inspect), else those in its ownerReferences (shared by jobs)."""
    completions: int
    completed: frozenset[int] = frozenset()
    """Finished indexes (status.completedIndexes; {0} for a finished one-pod Job)."""
    active: int = 0
    finished: Literal["", "Complete", "Failed"] = ""
    """The condition that ended the Job; empty while it runs. `FailureTarget` is not an end: pods still terminate."""
    reason: str = ""
    """Reason of the ending condition: PodFailurePolicy, BackoffLimitExceeded, FailedIndexes, DeadlineExceeded, ..."""
    message: str = ""
    suspended: bool = False
    """Held by a queue (Kueue flips spec.suspend)."""
    queue: str = ""
    """Why, in the queue's own words, where it says."""
    queue_name: str = ""
    """Label: the queue it is in; empty for none."""
    priority_class: str = ""
    """Label: what its queue ranks it by; empty for none."""
    priority: int | None = None
    """The rank that its queue gives it, while it is held and where the queue says."""
    ranks: Mapping[str, int] = field(default_factory=dict)
    """The same of priority classes that are in use in its namespace, by name."""
    deleting: bool = False
    exits: tuple[Exit, ...] = ()
    """Newest terminated container per index, failed ones and (for inspect and finalise) the successful one."""
    scheduling: str = ""
    """Why its pods are not scheduled: the PodScheduled=False message."""
    image_pull: str = ""
    """`ErrImagePull: ...` or `ImagePullBackOff: ...` of a waiting container."""
    refused: str = ""
    """Why it has no pod: what the API server (quota, LimitRange, Pod Security, a webhook) said to the Job controller."""
    stuck: str = ""
    """`CreateContainerConfigError: ...` and the like of a container that has a node and an image and cannot be made."""
    running: int = 0
    """Pods that run and are ready."""
    made_from: str = ""
    """Annotation that says what of which job it was made from."""
    owner_job: str = ""
    """Name of the batch Job it belongs to: of a finalise Job, its conversion."""
    foreign: bool = False
    """Whether something else than jobs of our kind (or, of a finalise Job, a batch Job) owns it, or nobody does."""
    created: datetime | None = None
    """By the API server's clock, in whole seconds."""


@dataclass(frozen=True, slots=True)
class ContainerState:
    """State of one container."""

    state: Literal["waiting", "running", "terminated"]
    reason: str = ""
    message: str = ""
    """Termination message when terminated."""
    exit_code: int | None = None
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class PodState:
    """A pod of a RayCluster, of any attempt. Head pods are always present; worker pods at least in a live read."""

    name: str
    uid: str
    attempt: int
    role: Literal["head", "worker"]
    phase: Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"] = "Pending"
    ready: bool = False
    deleting: bool = False
    node: str = ""
    unreachable_since: datetime | None = None
    """Since when its node is unreachable (Ready Unknown, or gone); None while the node answers."""
    scheduling: str = ""
    image_pull: str = ""
    ray: ContainerState | None = None
    """The Ray container; None before the kubelet reported it."""
    driver: ContainerState | None = None
    """The driver container of a head pod."""
    disruption: str = ""
    """Reason of a DisruptionTarget condition (PreemptionByScheduler, EvictionByEvictionAPI, ...), empty when none."""
    cluster_uid: str = ""
    """Uid of the RayCluster that controls it."""

    @property
    def turns(self) -> tuple[object, ...]:
        """What must be acted on at once, false or empty while there is nothing of it: an end, one that is near, no way to begin."""
        ended = any(c is not None and c.state == "terminated" for c in (self.ray, self.driver))
        return not self.alive, ended, self.deleting, self.disruption, self.image_pull, bool(self.scheduling)

    @property
    def alive(self) -> bool:
        """Whether a process of the pod may still run (a finished pod object may linger)."""
        return self.phase not in ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class ClusterState:
    """A RayCluster."""

    attempt: int
    """Which it is labelled with: the one it runs, or that ended last in it."""
    name: str
    uid: str
    resource_version: str
    owner_uids: frozenset[str]
    """UID of its controller; empty when it has none."""
    created_at: datetime
    deleting: bool = False
    suspended: bool = False
    """spec.suspend, or condition RayClusterSuspending or RayClusterSuspended."""
    queue: str = ""
    """Why, in the queue's own words, where it says."""
    told_to_suspend: bool = False
    """spec.suspend alone."""
    emptied: bool = False
    """Condition RayClusterSuspended: none of its pods is left, and KubeRay makes no new ones."""
    held: bool = False
    """Suspended by this operator, between two attempts."""
    queued: bool = False
    """Under a queue that suspends it and lets go."""
    queue_name: str = ""
    """Label with that queue's name; it is there also where no Kueue is."""
    priority_class: str = ""
    """Label: what that queue ranks it by; empty for none."""
    nudged: str = ""
    """When KubeRay was asked last to look at it, RFC 3339."""
    pods: str = ""
    """Annotation with the digest of its pods' specs; empty for one made by an earlier version."""
    template_attempt: int = 0
    """Attempt that its pod templates are labelled with; 0 when they differ."""
    head_ready: bool = False
    """Condition HeadPodReady."""
    head_reason: str = ""
    """Its reason: HeadPodRunningAndReady, HeadPodNotFound, a container reason such as Completed."""
    provisioned: bool = False
    """Condition RayClusterProvisioned: sticky, means only that everything was ready once."""
    replica_failure: str = ""
    """Message of condition ReplicaFailure; empty while absent."""
    ready_workers: int = 0
    wanted_workers: int = 0
    """Sum of replicas x numOfHosts of the RayCluster's own spec."""
    made_from: str = ""
    """Annotation that says what of the job it was made from."""
    refused: str = ""
    """Message of a Warning event InvalidRayClusterSpec: KubeRay stops there and sets no condition."""

    @property
    def turns(self) -> tuple[object, ...]:
        """What must be acted on at once, false or empty while there is nothing of it."""
        return self.settled, self.suspended, self.emptied, self.deleting, self.provisioned, self.replica_failure

    @property
    def settled(self) -> bool:
        """Whether nothing is to be expected of it for now: all its pods are ready, or a queue holds it."""
        return self.suspended or (self.head_ready and self.ready_workers >= self.wanted_workers)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A create the API server or an admission webhook refused; kept by the adapter until a create of it succeeds."""

    ref: ObjectRef
    message: str
    permanent: bool
    """True when the object itself is wrong (422, a policy's denial); False for quota and time-outs."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything a decision reads besides the job's document and the clock."""

    inspect: JobState | None = None
    """The Job named by `naming.inspect_job(name)`, whoever owns it."""
    jobs: Mapping[str, JobState] = field(default_factory=dict)
    """Every convert and finalise Job of the namespace by name (label lprl.dev/content-key): conversions are shared."""
    clusters: tuple[ClusterState, ...] = ()
    """RayClusters labelled with this job, of any attempt."""
    pods: tuple[PodState, ...] = ()
    """Pods of those RayClusters, of any attempt, also when the RayCluster is gone already."""
    progress: str | None = None
    """Key progress.json of the progress ConfigMap (one this very job owns) of the newest attempt; raw, checked by the reader."""
    control: str | None = None
    """Key control.json of the same ConfigMap."""
    missing_kinds: frozenset[str] = frozenset()
    """Kinds the API server does not serve, such as RayCluster."""
    refusals: tuple[Refusal, ...] = ()
    progress_attempt: int | None = None
    """Attempt of the progress ConfigMap `progress` and `control` are of; None when there is none that this very job owns."""
    pools: Mapping[str, str] | None = None
    """What keeps the warm pools that the job's tools name from giving a sandbox, by name; empty text for one that can, missing those not
    read yet. None where sandboxes come from no pool.
    """
    departed: Mapping[str, PodState] = field(default_factory=dict)
    """By uid of the RayCluster: its newest head that is gone, as it was last seen, where that tells how it ended."""

    def cluster(self, attempt: int) -> ClusterState | None:
        """Return the RayCluster of an attempt."""
        return next((c for c in self.clusters if c.attempt == attempt), None)

    def head(self, attempt: int) -> PodState | None:
        """Return the newest head pod of an attempt: the one not deleting, if there are several."""
        heads = [p for p in self.pods if p.attempt == attempt and p.role == "head"]
        return min(heads, key=lambda p: p.deleting, default=None)

    def last_head(self, attempt: int) -> PodState | None:
        """Return the head pod of an attempt, or how it was last seen when it is gone and that tells how it ended."""
        return self.head(attempt) or self.departed_head(attempt)

    def departed_head(self, attempt: int) -> PodState | None:
        """Return the head of an attempt that is gone, as it was last seen, where that tells how it ended."""
        cluster = self.cluster(attempt)
        found = self.departed.get(cluster.uid) if cluster is not None else None
        return found if found is not None and found.attempt == attempt else None
