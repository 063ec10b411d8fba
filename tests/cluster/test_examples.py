"""The main job by real pods: examples applied with kubectl, driven to Complete, learning as on a laptop."""

from collections.abc import Callable

import pytest
from tests.cluster.jobs import START_S, Job, example
from tests.cluster.kube import Document, Kube, wait

LEARNED = 0.9
FINISH_S = 900


@pytest.mark.parametrize("path", ["cluster/two-workers.yaml", "00-cpu-quickstart.yaml"])
def test_an_example_learns(path: str, kube: Kube, namespace: str, submit: Callable[[Document], Job]) -> None:
    manifest = example(path)
    workers = manifest["spec"]["topology"]["nodes"]
    job = submit(manifest)
    job.wait_phase("Running", seconds=START_S)
    wait(lambda: job.status()["nodes"]["summary"] == f"{workers}/{workers}", "every worker ready", START_S, job.story)
    assert len(job.pods("head")) == 1 and len(job.pods("workers")) == workers

    status = job.wait_phase("Succeeded", seconds=FINISH_S)
    training = status["training"]
    assert float(training["reward"]) > LEARNED and float(training["evaluationReward"]) > 0.8
    assert training["summary"] == "120/120" and status["attempt"] == 1 and not status.get("failures")
    assert job.condition("Complete")["status"] == "True"

    header, row = (line.split() for line in kube.run("-n", namespace, "get", "lprljobs", job.name).splitlines())
    assert header == ["NAME", "PHASE", "PRECISION", "NODES", "CONVERTED", "STEP", "REWARD", "AGE"]
    assert row[:3] == [job.name, "Succeeded", "int4-qat/int4"] and row[5] == "120/120" and float(row[6]) > LEARNED
    described = kube.run("-n", namespace, "describe", "lprljob", job.name)
    assert "Complete" in described and "Events:" in described
    wait(lambda: not job.running(), "the cluster is released", 90, job.story)
