"""Labels, annotations and owner references. Every call returns fresh mappings: no two documents share one."""

from typing import Any

from lprl_api import names
from lprl_api.spec.job import LowPrecisionRLJob

QUEUE_PREFIXES = ("kueue.x-k8s.io/", "volcano.sh/", "scheduling.volcano.sh/", "yunikorn.apache.org/", "kai.scheduler/")
"""Labels and annotations of batch schedulers, handed from the job to what they queue."""
KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"
KUEUE_TIME_LIMIT = "kueue.x-k8s.io/max-exec-time-seconds"
KUEUE_UNFIT = frozenset(f"kueue.x-k8s.io/{name}" for name in ("job-min-parallelism", "elastic-job", "prebuilt-workload-name"))
"""What Kueue offers that is not for these jobs: fewer pods than asked for, one Workload made by hand for all children."""
QUEUE_LABELS = ("ray.io/priority-class-name", "ray.io/gang-scheduling-enabled")


def is_queue_key(key: str) -> bool:
    """Whether a label or annotation of the job belongs to a batch scheduler, and is handed on to it."""
    return key not in KUEUE_UNFIT and (key.startswith(QUEUE_PREFIXES) or key in QUEUE_LABELS)


def labels(job: LowPrecisionRLJob, role: str, attempt: int | None = None) -> dict[str, str]:
    """Labels of a child or pod; the attempt is set on everything an attempt owns."""
    found = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_JOB: job.metadata.name, names.LABEL_ROLE: role}
    return found if attempt is None else {**found, names.LABEL_ATTEMPT: str(attempt)}


def shared_labels(content_key: str, role: str) -> dict[str, str]:
    """Labels of a conversion, which belongs to no single job."""
    return {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_CONTENT_KEY: content_key[:63], names.LABEL_ROLE: role}


def queue_labels(job: LowPrecisionRLJob) -> dict[str, str]:
    """The job's batch-scheduler labels, for its RayCluster."""
    return {k: v for k, v in sorted(job.metadata.labels.items()) if is_queue_key(k)}


def preparing_queue_labels(job: LowPrecisionRLJob) -> dict[str, str]:
    """The same for its Jobs: a queue of their own where the job names one, and no limit of time, which is the training's."""
    found = {k: v for k, v in queue_labels(job).items() if k != KUEUE_TIME_LIMIT}
    own = job.spec.conversion.queue_name
    return found if own is None else {**found, KUEUE_QUEUE: own}


def queue_annotations(job: LowPrecisionRLJob) -> dict[str, str]:
    """The job's batch-scheduler annotations, for its RayCluster."""
    return {k: v for k, v in sorted(job.metadata.annotations.items()) if is_queue_key(k) and not k.startswith(names.KUEUE_POD_SET)}


def worker_annotations(job: LowPrecisionRLJob) -> dict[str, str]:
    """Those that act on worker pods alone, for their templates: the job's, or what podTemplate.topology says to each queue it is in."""
    topology, notes = job.spec.pod_template.topology, job.metadata.annotations
    if topology is None:
        return {k: v for k, v in sorted(notes.items()) if k.startswith(names.KUEUE_POD_SET)}
    word, found = "required" if topology.required is not None else "preferred", dict[str, str]()
    if KUEUE_QUEUE in job.metadata.labels:
        found[f"{names.KUEUE_POD_SET}{word}-topology"] = topology.level
    if names.LABEL_KAI_QUEUE in job.metadata.labels:
        found |= {names.KAI_TOPOLOGY: notes.get(names.KAI_TOPOLOGY, ""), f"{names.KAI_TOPOLOGY}-{word}-placement": topology.level}
    return found


def owner(job: LowPrecisionRLJob, controller: bool = True) -> dict[str, Any]:
    """Owner reference to the job. A shared object has several owners, so none of them is its controller."""
    meta = job.metadata
    found: dict[str, Any] = {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": meta.name, "uid": meta.uid}
    if controller:
        # Not blockOwnerDeletion: setting it needs permission on the owner's finalizers, and nothing here waits for children.
        found["controller"] = True
    return found


def metadata(job: LowPrecisionRLJob, name: str, role: str, attempt: int | None = None) -> dict[str, Any]:
    """Metadata of a child that belongs to this job alone."""
    return {
        "name": name,
        "namespace": job.metadata.namespace,
        "labels": labels(job, role, attempt),
        "ownerReferences": [owner(job)],
    }


def shared_metadata(job: LowPrecisionRLJob, name: str, content_key: str, role: str) -> dict[str, Any]:
    """Metadata of a conversion's child as this job would create it; later owners add their reference."""
    return {
        "name": name,
        "namespace": job.metadata.namespace,
        "labels": shared_labels(content_key, role),
        "ownerReferences": [owner(job, controller=False)],
    }
