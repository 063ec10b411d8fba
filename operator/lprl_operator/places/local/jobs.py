"""The Job controller: indexes, retries per index, pod failure policy."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from lprl_api.names import ANNOTATION_MADE_FROM
from lprl_operator.decide.observed import Exit, JobState
from lprl_operator.places.local.pods import LocalPod, PodOrder, message_of
from lprl_operator.places.local.store import ObjectStore, holders, is_foreign

BACKOFF_SECONDS = 0.5
"""Delay before the first retry of an index, doubled each time up to MAX_BACKOFF_SECONDS (Kubernetes: 10 s, up to 6 min)."""
MAX_BACKOFF_SECONDS = 10.0
Verdict = Literal["ignore", "count", "fail-index", "fail-job"]


def verdict(job: Mapping[str, Any], pod: LocalPod) -> tuple[Verdict, str]:
    """Return what a failed pod means under the Job's podFailurePolicy, and why."""
    last = pod.last_exit()
    rules = job["spec"].get("podFailurePolicy", {}).get("rules", ())
    for number, rule in enumerate(rules):
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
        matched = bool(conditions) and bool(pod.disruption())
        if codes is not None and last is not None:
            inside = last[0].code in codes["values"]
            named = codes.get("containerName") in (None, last[1].folder.name)
            matched = named and last[0].code != 0 and (inside if codes["operator"] == "In" else not inside)
        if matched:
            why = f"pod {pod.name} failed with exit code {last[0].code if last else '?'} matching rule {number}"
            return _ACTIONS[rule["action"]], why
    return "count", ""


_ACTIONS: dict[str, Verdict] = {"Ignore": "ignore", "Count": "count", "FailIndex": "fail-index", "FailJob": "fail-job"}


class JobController:
    """Runs the pods of Jobs; what a Job has done is read off its pods, so a restart needs no memory of its own."""

    def __init__(self, store: ObjectStore, start: Callable[[PodOrder], LocalPod]) -> None:
        self._store = store
        self._start = start

    def step(self, job: dict[str, Any], pods: Sequence[LocalPod]) -> None:
        """Bring one Job further: judge ended pods, then finish it or start what is due."""
        for pod in pods:
            pod.step()
        if "deletionTimestamp" in job["metadata"] or job.get("status", {}).get("finished") or job["spec"].get("suspend"):
            if job["spec"].get("suspend") or "deletionTimestamp" in job["metadata"]:
                self._end_all(pods)
            return
        failed = self._failure(job, pods)
        if failed is not None:
            self._end_all(pods)
            if all(pod.ended for pod in pods):
                self._finish(job, "Failed", *failed)
            return
        done = completed(pods)
        completions = int(job["spec"].get("completions", 1))
        if len(done) == completions:
            self._finish(job, "Complete", "CompletionsReached", "")
            return
        self._start_due(job, pods, [i for i in range(completions) if i not in done])

    def _finish(self, job: dict[str, Any], finished: str, reason: str, message: str) -> None:
        job["status"] = {"finished": finished, "reason": reason, "message": message}
        self._store.replace(job)

    def _end_all(self, pods: Sequence[LocalPod]) -> None:
        for pod in pods:
            if not pod.ended:
                pod.delete()

    def _failure(self, job: Mapping[str, Any], pods: Sequence[LocalPod]) -> tuple[str, str] | None:
        spec = job["spec"]
        counted: dict[int, int] = {}
        for pod in pods:
            if pod.phase() != "Failed" or pod.deleting:
                continue
            what, why = verdict(job, pod)
            if what == "fail-job":
                return "PodFailurePolicy", why
            if what == "fail-index":
                return "FailedIndexes", why
            if what == "count":
                counted[pod.record["index"]] = counted.get(pod.record["index"], 0) + 1
        per_index = spec.get("backoffLimitPerIndex")
        if per_index is not None and (over := [i for i, n in counted.items() if n > per_index]):
            return "FailedIndexes", f"index {min(over)} failed {counted[min(over)]} times"
        if per_index is None and sum(counted.values()) > spec.get("backoffLimit", 6):
            return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        return None

    def _start_due(self, job: Mapping[str, Any], pods: Sequence[LocalPod], missing: list[int]) -> None:
        alive = {pod.record["index"] for pod in pods if not pod.ended}
        room = int(job["spec"].get("parallelism", 1)) - len(alive)
        for index in [i for i in missing if i not in alive]:
            if room <= 0:
                return
            earlier = [pod for pod in pods if pod.record["index"] == index]
            failures = sum(1 for pod in earlier if verdict(job, pod)[0] != "ignore")
            delay = min(BACKOFF_SECONDS * 2 ** (failures - 1), MAX_BACKOFF_SECONDS) if failures else 0.0
            if earlier and time.time() < max(pod.finished_at() for pod in earlier) + delay:
                continue
            self._start(self._order(job, index, len(earlier)))
            room -= 1

    def _order(self, job: Mapping[str, Any], index: int, number: int) -> PodOrder:
        meta = job["metadata"]
        return PodOrder(
            name=f"{meta['name']}-{index}-{number}",
            owner=f"Job/{meta['uid']}",
            template=job["spec"]["template"],
            namespace=meta.get("namespace", "default"),
            index=index,
            env={"JOB_COMPLETION_INDEX": str(index)},
        )


def completed(pods: Sequence[LocalPod]) -> frozenset[int]:
    """Return the indexes one of whose pods succeeded."""
    return frozenset(pod.record["index"] for pod in pods if pod.phase() == "Succeeded")


def job_state(job: Mapping[str, Any], pods: Sequence[LocalPod]) -> JobState:
    """Return a Job as decisions see it."""
    meta, status = job["metadata"], job.get("status", {})
    newest: dict[int, Exit] = {}
    for pod in sorted(pods, key=lambda p: p.finished_at()):
        last = pod.last_exit()
        if pod.ended and last is not None:
            ended, container = last
            reason = ended.reason or ("Completed" if ended.code == 0 else "Error")
            newest[pod.record["index"]] = Exit(pod.record["index"], ended.code, reason, message_of(container, ended))
    return JobState(
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        owner_uids=holders(job),
        completions=int(job["spec"].get("completions", 1)),
        completed=completed(pods),
        active=sum(1 for pod in pods if not pod.ended),
        finished=status.get("finished", ""),
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        suspended=bool(job["spec"].get("suspend", False)),
        deleting="deletionTimestamp" in meta,
        exits=tuple(newest[i] for i in sorted(newest)),
        owner_job=next((o["name"] for o in meta.get("ownerReferences", ()) if o["kind"] == "Job"), ""),
        foreign=is_foreign(job),
        running=sum(1 for pod in pods if not pod.ended),
        made_from=meta.get("annotations", {}).get(ANNOTATION_MADE_FROM, ""),
    )
