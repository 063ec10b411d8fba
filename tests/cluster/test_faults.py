"""What real pods can lose while a job trains: a worker, the operator, the head, the will to go on."""

import re
import time
from collections.abc import Callable
from typing import Any

from tests.cluster.jobs import START_S, Job, example
from tests.cluster.kube import Document, Kube, wait

STEPS = 60
EVERY = 4
STALL_S = 120
"""More than a driver takes to find Ray on a busy node: nothing moves meanwhile."""
FINISH_S, GONE_S = 600, 30
Submit = Callable[[Document], Job]


def small(name: str, **spec: Any) -> Document:
    """Return the two-worker example, shorter and with checkpoints close together."""
    changes = {"algorithm__steps": STEPS, "checkpoint__everySteps": EVERY, "evaluation__everySteps": STEPS, **spec}
    return example("cluster/two-workers.yaml", name, **changes)


def kill(kube: Kube, namespace: str, selector: str) -> str:
    """Delete the first pod of a selector at once, as a lost node would, and return its name."""
    pods = [p for p in kube.list("pods", namespace, selector) if "deletionTimestamp" not in p["metadata"]]
    name = str(pods[0]["metadata"]["name"])
    kube.run("-n", namespace, "delete", "pod", name, "--grace-period=0", "--force")
    return name


def progress_of(kube: Kube, job: Job) -> Document:
    """Return the metadata of the ConfigMap its driver reports into, empty where there is none."""
    found = kube.get("configmaps", f"{job.name}-a{job.status()['attempt']}-progress", job.namespace)
    return dict(found["metadata"]) if found else {}


def assert_whole(job: Job, status: Document) -> None:
    """Every step was made exactly once in the end, and nothing runs any more."""
    assert status["training"]["summary"] == f"{STEPS}/{STEPS}"
    assert job.condition("Complete")["status"] == "True"
    wait(lambda: not job.running(), "the cluster is released", 90, job.story)


LEISURELY: dict[str, Any] = {
    "data__reward": {"type": "python", "function": "lprl_fixtures.runs:even_share_at_leisure", "timeoutSeconds": 3600},
    "algorithm__rolloutBatchSize": 4,
    "algorithm__samplesPerPrompt": 4,
    "evaluation": None,
}
"""Attempt 1 takes eight seconds a step, so that it is there, whatever a busy node takes to bring back what it lost; attempt 2 does not."""


def test_a_lost_worker_a_lost_operator_and_a_lost_head(kube: Kube, submit: Submit) -> None:
    """The first two are made good within the attempt; the third is a new attempt from the newest checkpoint."""
    job = submit(small("losses", **LEISURELY))
    mine = f"lprl.dev/job={job.name},lprl.dev/role="
    job.wait_phase("Running", seconds=START_S)
    wait(lambda: job.checkpointed() >= EVERY, "a checkpoint", 300, job.story)
    kill(kube, "lprl-system", "app.kubernetes.io/name=lprl")
    lost = kill(kube, job.namespace, f"{mine}workers")
    wait(lambda: len(job.pods("workers")) == 2 and lost not in str(job.pods("workers")), "a new worker", 300, job.story)
    before = job.checkpointed()
    wait(lambda: job.checkpointed() > before, "another checkpoint", 480, job.story)
    status = job.status()
    assert status["attempt"] == 1 and not status.get("failures"), job.story()

    saved = job.checkpointed()
    kill(kube, job.namespace, f"{mine}head")
    wait(lambda: job.status().get("attempt") == 2, "attempt 2", 180, job.story)
    assert job.checkpointed() >= saved
    status = job.wait_phase("Succeeded", seconds=FINISH_S)
    assert status["attempt"] == 2 and [(f["attempt"], f["reason"]) for f in status["failures"]] == [(1, "HeadLost")]
    assert_whole(job, status)


HANGS: dict[str, Any] = {
    "data__reward": {"type": "python", "function": "lprl_fixtures.runs:even_share_then_hang", "timeoutSeconds": 3600},
    "algorithm__steps": 4000,
    "algorithm__rolloutBatchSize": 4,
    "algorithm__samplesPerPrompt": 4,
    "evaluation": None,
    "progress__intervalSeconds": 5,
    "failurePolicy__stallSeconds": STALL_S,
}
"""In attempt 1 the main thread never returns from the 30th reward; its reports go on."""


def test_a_driver_that_hangs_is_given_up_in_time_and_another_attempt_starts(submit: Submit) -> None:
    """Its reports go on: what counts is that nothing moves. The attempt is charged, and what stood still is said."""
    job = submit(small("hanging", **HANGS))
    job.wait_phase("Running", seconds=START_S)
    begun = time.monotonic()
    wait(lambda: job.status().get("failures"), "the stall is seen", STALL_S + 90, job.story)
    print(f"a driver that hangs was given up {time.monotonic() - begun:.0f} s after it ran (limit {STALL_S} s)")
    (failure,) = job.status()["failures"]
    assert (failure["reason"], job.status()["restartsUsed"]) == ("Stalled", 1), job.told()
    assert re.fullmatch(rf"step \d: rewards, \d+ of 16 responses, no movement for {STALL_S} s", failure["message"]), failure
    wait(lambda: job.status().get("attempt") == 2, "attempt 2", 240, job.story)
    job.delete()


def test_suspended_resumed_where_it_was_and_deleted_while_it_runs(kube: Kube, submit: Submit) -> None:
    """The ConfigMap its driver reports into is deleted before: it comes back, and the driver hears of the suspension through it."""
    job = submit(small("suspended"))
    job.wait_phase("Running", seconds=START_S)
    job.wait_step(EVERY + 1, 180)
    before = progress_of(kube, job)
    kube.run("-n", job.namespace, "delete", "configmap", str(before["name"]))
    wait(lambda: progress_of(kube, job).get("uid", before["uid"]) != before["uid"], "its reports have a place again", 60, job.story)
    job.wait_step(job.step() + 1, 60)
    job.patch({"suspend": True})
    job.wait_phase("Suspended", seconds=180)
    wait(lambda: not job.running(), "its pods are gone", 60, job.story)
    at, saved = job.step(), job.checkpointed()
    assert saved == at > EVERY, "the driver saved what it had before it left"
    job.patch({"suspend": False})
    job.wait_phase("Running", seconds=START_S)
    job.wait_step(at + 1, 180)
    status = job.status()
    assert status["attempt"] == 2 and not status.get("failures") and not status.get("restartsUsed")
    logs = kube.run("-n", job.namespace, "logs", "-l", f"lprl.dev/job={job.name},lprl.dev/role=head", "-c", "driver", "--tail=-1")
    assert f"resumed from step {at}" in logs, "it resumed from its checkpoint"
    print(f"gone after {job.delete(GONE_S):.0f} s")
    assert job.children() == []
