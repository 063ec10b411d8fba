"""A job that trains for long, and what happens to it: looked at, edited, its head deleted, its node drained, deleted itself."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.jobs import START_S, Job, tiny
from tests.cluster.kube import Document, Kube, wait
from tests.pages import RUN_BY, script, shown

SECTIONS = RUN_BY["tests/cluster/test_training_job.py"]
TEAM = "team"
"""The namespace of the page."""
INTERVAL_S = 15
WINDOW_S = 60.0
EVERY = 400
NOTICED_S, RESTARTED_S, GONE_S = 10, 60, 30
"""Seconds: until a head on its way out is told, until the next attempt is made, until nothing is left of a job. On two busy cores."""
EDITS: dict[str, Document] = {
    "checkpoint.path": {"checkpoint": {"path": "elsewhere"}},
    "optimizer": {"optimizer": {"learningRate": 0.5}},
    "algorithm": {"algorithm": {"seed": 7}},
    "sampling": {"sampling": {"temperature": 0.5}},
    "volumes": {"volumes": {"checkpoints": {"persistentVolumeClaim": "data"}}},
}


@pytest.fixture(scope="module")
def toy(request: pytest.FixtureRequest, kube: Kube, place: Callable[[str], str]) -> Iterator[Job]:
    """The job of the page, past its first steps; from then on reproducers run beside it."""
    job = Job(kube, place(TEAM), "toy")
    spec: dict[str, Any] = {"algorithm__steps": 20000, "checkpoint__everySteps": EVERY, "progress__intervalSeconds": INTERVAL_S}
    job.apply(tiny(job.name, **spec))
    job.wait_phase("Running", seconds=2 * START_S)
    job.wait_step(20, 120)
    request.getfixturevalue("beside")
    yield job
    job.delete()


def goes_on(job: Job, attempt: int, seconds: float) -> float:
    """Wait until an attempt is made and return how long that took; then until it trains."""
    begun = time.monotonic()
    wait(lambda: job.status().get("attempt") == attempt, f"attempt {attempt}", seconds, job.story)
    took = time.monotonic() - begun
    job.wait_phase("Running", seconds=START_S)
    at = job.step()
    wait(lambda: job.step() != at, "it reports again", 120, job.story)
    print(f"attempt {attempt} was made after {took:.0f} s, trained after {time.monotonic() - begun:.0f} s")
    return took


def writes(audit: Path, job: Job, begun: datetime, seconds: float) -> Counter[str]:
    """Count what was written of a job and by it, by who, verb and what, from the API server's audit log."""
    found: Counter[str] = Counter()
    for line in audit.read_text().splitlines():
        event = json.loads(line)
        ref, at = event["objectRef"], datetime.fromisoformat(event["requestReceivedTimestamp"])
        if ref["namespace"] == job.namespace and ref.get("name", "").startswith(job.name) and 0 <= (at - begun).total_seconds() < seconds:
            who = event["user"]["username"].rpartition(":")[2]
            found[f"{who} {event['verb']} {ref['resource']}{'/' if ref.get('subresource') else ''}{ref.get('subresource', '')}"] += 1
    return found


def test_it_is_looked_at_as_documented_and_reports_no_oftener_than_it_is_told_to(kube: Kube, toy: Job, tmp_path: Path) -> None:
    """The page's commands, in its namespace; meanwhile the job writes to the API server once an interval, and at what is news."""
    assert kube.audit is not None
    mine = Kube(tmp_path / "kubeconfig", kube.path)
    shutil.copy(kube.kubeconfig, mine.kubeconfig)
    mine.run("config", "set-context", "--current", f"--namespace={toy.namespace}")
    (tmp_path / "job.yaml").write_text(json.dumps(tiny("first")))
    begun, step = datetime.now(UTC), toy.step()
    printed = mine.paste(script([block for section in SECTIONS for block in shown(section)], tmp_path), tmp_path, 2 * START_S)
    assert "\ntoy " in printed and "toy-a1-head" in printed and "succeeded" in printed, printed
    time.sleep(max(0.0, WINDOW_S - (datetime.now(UTC) - begun).total_seconds()))
    found = writes(kube.audit, toy, begun, WINDOW_S)
    print(f"writes in {WINDOW_S:g} s, steps {step} to {toy.step()}: {sum(found.values())}: {dict(found)}")
    due = WINDOW_S / INTERVAL_S + 1 + (toy.step() - step) / EVERY + 1  # a report each interval and each checkpoint
    told = {word: sum(n for what, n in found.items() if word in what) for word in ("configmaps", "lowprecisionrljobs/status")}
    assert 0 < told["configmaps"] <= due and 0 < told["lowprecisionrljobs/status"] <= due, found


@pytest.mark.parametrize("field", EDITS)
def test_an_edit_of_what_decides_the_result_is_refused_while_it_trains(field: str, kube: Kube, toy: Job) -> None:
    said = kube.refused("-n", toy.namespace, "patch", "lprl", toy.name, "--type=merge", "-p", json.dumps({"spec": EDITS[field]}))
    assert field in said and "immutable" in said, said


def test_a_deleted_head_is_told_at_once_and_the_next_attempt_starts_in_seconds(kube: Kube, toy: Job) -> None:
    wait(lambda: toy.checkpointed() > 0, "a checkpoint", 120, toy.story)
    attempt, saved = toy.status()["attempt"], toy.checkpointed()
    begun = time.monotonic()
    kube.run("-n", toy.namespace, "delete", "pod", toy.pods("head")[0]["metadata"]["name"], "--wait=false")
    wait(lambda: toy.condition("ClusterReady")["status"] == "False", "the head is told", NOTICED_S, toy.story)
    print(f"ClusterReady=False after {time.monotonic() - begun:.1f} s: {toy.condition('ClusterReady')['message']}")
    goes_on(toy, attempt + 1, RESTARTED_S)
    status = toy.status()
    assert status["failures"][-1]["reason"] == "HeadLost" and status["restartsUsed"] == 1, toy.told()
    assert toy.step() >= saved


def test_a_drained_node_charges_nothing_and_the_next_attempt_starts_in_seconds(kube: Kube, toy: Job) -> None:
    before = toy.status()
    node = toy.pods("head")[0]["spec"]["nodeName"]
    begun = time.monotonic()
    flags = ("--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={RESTARTED_S}s")
    try:
        kube.run("drain", node, f"--pod-selector=lprl.dev/job={toy.name}", *flags)
        print(f"drained after {time.monotonic() - begun:.0f} s")
    finally:
        kube.run("uncordon", node)
    goes_on(toy, before["attempt"] + 1, RESTARTED_S)
    assert toy.status().get("restartsUsed") == before.get("restartsUsed"), toy.told()
    assert "Evicted" in toy.told(), toy.told()


def test_a_job_deleted_while_it_trains_is_gone_in_seconds(toy: Job) -> None:
    assert toy.running()
    print(f"gone after {toy.delete(GONE_S):.0f} s")
