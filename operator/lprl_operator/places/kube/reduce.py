"""PURE: API documents -> the few fields decisions read (decide/observed.py). Unknown or missing parts are never an error."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, cast

from lprl_api.names import (
    ANNOTATION_MADE_FROM,
    CONTROL_KEY,
    LABEL_ATTEMPT,
    LABEL_PRIORITY,
    LABEL_QUEUE,
    PROGRESS_KEY,
    TERMINATION_MESSAGE_BYTES,
)
from lprl_operator.decide.observed import ContainerState, Exit, JobState, PodState
from lprl_operator.places.kube.owners import controller_uid, holders, is_foreign, owning_batch_job
from lprl_operator.resources import refused_pods

Document = Mapping[str, Any]
HEAD_TYPE = "ray.io/node-type"
JOB_NAME = "batch.kubernetes.io/job-name"
JOB_INDEX = "batch.kubernetes.io/job-completion-index"
IMAGE_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
STUCK_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"})
MAX_TEXT = 512
MAX_PROGRESS_BYTES = 64 * 1024
"""Of a progress report: a driver's is below 4 KiB; anything larger is not one."""


@dataclass(frozen=True, slots=True)
class JobPod:
    """A pod of an inspect, convert or finalise Job."""

    name: str
    uid: str
    job_name: str
    job_uid: str
    created: str
    exit: Exit | None
    scheduling: str
    image_pull: str
    stuck: str


@dataclass(frozen=True, slots=True)
class ProgressMap:
    """A progress ConfigMap."""

    uid: str
    owner_uid: str
    attempt: int
    progress: str | None
    control: str | None


def time_of(text: str | None) -> datetime:
    """Parse an API time; the epoch for none."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else datetime.fromtimestamp(0, UTC)


def meta(document: Document) -> Mapping[str, Any]:
    """The object's metadata."""
    return cast("Mapping[str, Any]", document.get("metadata") or {})


def label(document: Document, key: str) -> str:
    """A label's value, empty when there is none."""
    return str((meta(document).get("labels") or {}).get(key, ""))


def made_from(document: Document) -> str:
    """The annotation that says what an object was made from."""
    return annotation(document, ANNOTATION_MADE_FROM)


def annotation(document: Document, key: str) -> str:
    """An annotation's value, empty when there is none."""
    return str((meta(document).get("annotations") or {}).get(key, ""))


def attempt_of(document: Document) -> int | None:
    """The attempt an object is labelled with."""
    text = label(document, LABEL_ATTEMPT)
    return int(text) if text.isdigit() and len(text) < 9 else None


def conditions(document: Document) -> dict[str, Mapping[str, Any]]:
    """Status conditions by type."""
    return {str(c.get("type")): c for c in (document.get("status") or {}).get("conditions") or ()}


def is_true(found: Mapping[str, Mapping[str, Any]], kind: str) -> bool:
    """Whether a condition is True."""
    return found.get(kind, {}).get("status") == "True"


def job_state(document: Document) -> JobState:
    """A batch Job without what its pods say (see `with_pods`)."""
    spec, status, found = document.get("spec") or {}, document.get("status") or {}, conditions(document)
    finished: Literal["", "Complete", "Failed"] = "Complete" if is_true(found, "Complete") else "Failed" if is_true(found, "Failed") else ""
    completed = indexes(str(status.get("completedIndexes") or ""))
    if not completed and spec.get("completionMode") != "Indexed" and status.get("succeeded"):
        completed = frozenset({0})
    ending = found.get(finished, {})
    return JobState(
        name=str(meta(document).get("name")),
        uid=str(meta(document).get("uid")),
        resource_version=str(meta(document).get("resourceVersion")),
        owner_uids=holders(document),
        completions=int(spec.get("completions") or 1),
        completed=completed,
        active=int(status.get("active") or 0),
        finished=finished,
        reason=str(ending.get("reason", "")),
        message=str(ending.get("message", ""))[:MAX_TEXT],
        suspended=bool(spec.get("suspend")),
        queue_name=label(document, LABEL_QUEUE),
        priority_class=label(document, LABEL_PRIORITY),
        deleting="deletionTimestamp" in meta(document),
        owner_job=owning_batch_job(document),
        foreign=is_foreign(document),
        running=int(status.get("ready") or 0),
        made_from=made_from(document),
        created=time_of(meta(document).get("creationTimestamp")),
    )


def with_pods(job: JobState, pods: Iterable[JobPod], refused: tuple[str, str] = ("", "")) -> JobState:
    """Add what a Job's pods say: the newest exit per index, and why pods do not start, or (`refused`: when and why) why there are none."""
    mine = sorted((p for p in pods if p.job_uid == job.uid), key=lambda p: p.created)
    exits = {p.exit.index: p.exit for p in mine if p.exit is not None}
    waiting = [p for p in mine if p.exit is None]
    at, why = refused
    stands = not (waiting or job.active or job.finished or job.suspended) and at >= max((p.created for p in mine), default="")
    return replace(
        job,
        refused=refused_pods.explained(why, "job") if stands else "",
        exits=tuple(exits[i] for i in sorted(exits)),
        scheduling=next((p.scheduling for p in waiting if p.scheduling), ""),
        image_pull=next((p.image_pull for p in waiting if p.image_pull), ""),
        stuck=next((p.stuck for p in waiting if p.stuck), ""),
    )


def indexes(text: str) -> frozenset[int]:
    """Parse status.completedIndexes: `1,3-5,7`."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def job_pod(document: Document) -> JobPod:
    """A pod of one of our Jobs."""
    text = (meta(document).get("annotations") or {}).get(JOB_INDEX) or label(document, JOB_INDEX)
    return JobPod(
        name=str(meta(document).get("name")),
        uid=str(meta(document).get("uid")),
        job_name=label(document, JOB_NAME),
        job_uid=controller_uid(document),
        created=str(meta(document).get("creationTimestamp", "")),
        exit=_pod_exit(document, int(text) if str(text).isdigit() else 0),
        scheduling=scheduling(document),
        image_pull=image_pull(document),
        stuck=stuck(document),
    )


def _pod_exit(document: Document, index: int) -> Exit | None:
    """The decisive container's end, once the pod ended: the first that failed, else the last one."""
    status = document.get("status") or {}
    if status.get("phase") not in ("Succeeded", "Failed"):
        return None
    ends = [e for s in _statuses(document) if (e := (s.get("state") or {}).get("terminated")) is not None]
    if not ends:
        return Exit(index, 0 if status.get("phase") == "Succeeded" else 1, str(status.get("reason", "")), str(status.get("message", "")))
    end = next((e for e in ends if e.get("exitCode")), ends[-1])
    message = str(end.get("message", ""))[:TERMINATION_MESSAGE_BYTES]
    return Exit(index, int(end.get("exitCode", 1)), str(end.get("reason", "")), message)


def _statuses(document: Document) -> Sequence[Mapping[str, Any]]:
    status = document.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def scheduling(document: Document) -> str:
    """Why a pod has no node, in the scheduler's words."""
    found = conditions(document).get("PodScheduled", {})
    return str(found.get("message") or found.get("reason", ""))[:MAX_TEXT] if found.get("status") == "False" else ""


def image_pull(document: Document) -> str:
    """`ErrImagePull: ...` of a container that waits for its image."""
    return _waiting(document, IMAGE_REASONS)


def stuck(document: Document) -> str:
    """`CreateContainerConfigError: ...` of a container that cannot be made, such as one whose Secret is missing."""
    return _waiting(document, STUCK_REASONS)


def _waiting(document: Document, reasons: frozenset[str]) -> str:
    for status in _statuses(document):
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in reasons:
            return f"{waiting['reason']}: {waiting.get('message', '')}"[:MAX_TEXT]
    return ""


def pod_state(document: Document) -> PodState | None:
    """A pod of a RayCluster; None when it carries no attempt (it is not ours)."""
    attempt, status, found = attempt_of(document), document.get("status") or {}, conditions(document)
    if attempt is None:
        return None
    head = label(document, HEAD_TYPE) == "head"
    containers = {str(s.get("name")): _container(s) for s in status.get("containerStatuses") or ()}
    disruption = found.get("DisruptionTarget", {})
    return PodState(
        name=str(meta(document).get("name")),
        uid=str(meta(document).get("uid")),
        attempt=attempt,
        role="head" if head else "worker",
        phase=status.get("phase", "Pending"),
        ready=is_true(found, "Ready"),
        deleting="deletionTimestamp" in meta(document),
        node=str((document.get("spec") or {}).get("nodeName") or ""),
        scheduling=scheduling(document),
        image_pull=image_pull(document) or stuck(document),
        ray=containers.get("ray-head" if head else "ray-worker"),
        driver=containers.get("driver"),
        disruption=str(disruption.get("reason", "")) if disruption.get("status") == "True" else "",
        cluster_uid=controller_uid(document),
    )


def _container(status: Mapping[str, Any]) -> ContainerState:
    state = status.get("state") or {}
    restarts = int(status.get("restartCount") or 0)
    if (end := state.get("terminated")) is not None:
        message = str(end.get("message", ""))[:TERMINATION_MESSAGE_BYTES]
        return ContainerState("terminated", str(end.get("reason", "")), message, int(end.get("exitCode", 1)), restarts)
    if "running" in state:
        return ContainerState("running", restarts=restarts)
    return ContainerState("waiting", str((state.get("waiting") or {}).get("reason", "")), restarts=restarts)


def progress_turns(found: ProgressMap) -> tuple[str, ...]:
    """What a progress report says that must not wait for its turn: that the driver began or is about to end, and the guard's state."""
    try:
        report = json.loads(found.progress or "{}")
        phase, state = report.get("phase"), (report.get("stability") or {}).get("state")
    except (ValueError, AttributeError):
        return ("unreadable",)
    stage = "ends" if phase in ("stopping", "finished") else "" if phase in (None, "starting") else "runs"
    return stage, "" if state in (None, "measuring") else str(state)


def progress_map(document: Document) -> ProgressMap | None:
    """A progress ConfigMap; None when it carries no attempt."""
    attempt, data = attempt_of(document), document.get("data") or {}
    if attempt is None:
        return None
    progress = data.get(PROGRESS_KEY)
    if progress is not None and len(progress) > MAX_PROGRESS_BYTES:
        progress = None
    return ProgressMap(str(meta(document).get("uid")), controller_uid(document), attempt, progress, data.get(CONTROL_KEY))
