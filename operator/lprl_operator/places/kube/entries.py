"""PURE: API documents -> what the cache keeps of them: a value for decisions, what of it wakes a job, and what must not wait."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lprl_api import names
from lprl_operator.decide.observed import JobState, Key
from lprl_operator.places.kube import owners, reduce
from lprl_operator.places.kube.reduce import ProgressMap
from lprl_operator.places.kube.reduce_clusters import cluster_state
from lprl_operator.places.kube.shelf import Name
from lprl_operator.places.kube.summary import job_document

Document = Mapping[str, Any]


def name_of(document: Document) -> Name:
    """Namespace and name."""
    found = reduce.meta(document)
    return Name(str(found.get("namespace", "")), str(found.get("name", "")))


def is_converted(job: JobState) -> bool:
    """Whether this is a conversion whose shards are all done, as against one that publishes them."""
    return job.finished == "Complete" and not job.owner_job


def identity(document: Document) -> tuple[Name, str, int]:
    """Name, uid and version; version 0 where there is none to compare."""
    found = reduce.meta(document)
    version = str(found.get("resourceVersion", "0"))
    return name_of(document), str(found.get("uid")), int(version) if version.isdigit() else 0


def reduced(kind: str, document: Document) -> tuple[Any, Any, tuple[Any, ...], frozenset[Key]]:
    """Return (value, what it tells, what of that is urgent, jobs it concerns); a value of None is not worth keeping."""
    if kind == names.KIND:
        value, tells, keys = job_document(document)
        return value, tells, (tells,), keys
    keys = owners.owning_jobs(document)
    if kind == "Job":
        job = reduce.job_state(document)
        turns = (job.finished, job.deleting, job.suspended)
        return job, replace(job, owner_uids=frozenset(), resource_version="", running=0), turns, keys
    if kind == "RayCluster":
        cluster = cluster_state(document)
        return cluster, cluster and replace(cluster, resource_version=""), cluster.turns if cluster else (), keys
    if kind == "Pod":
        pod = reduce.pod_state(document)
        return pod, pod, pod.turns if pod else (), keys
    found: ProgressMap | None = reduce.progress_map(document)
    return found, found, reduce.progress_turns(found) if found else (), keys
