"""The main job by real pods: examples applied with kubectl, driven to Complete, learning as on a laptop.

The quickstart always, two workers too where test_first_job.py does not train them; with LPRL_E2E_EXAMPLES=all every CPU example of the
laptop, two at a time (half an hour on two cores).
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.cluster.conftest import OURS
from tests.cluster.jobs import EXAMPLES, START_S, Job, example
from tests.cluster.kube import Document, Kube, wait

LEARNED = 0.8
FINISH_S = 900
ALWAYS = (*(() if OURS else ("cluster/two-workers.yaml",)), "00-cpu-quickstart.yaml")
BESIDE = ("40-lookup-tool.yaml", "41-sandbox-tool.yaml")
"""Examples that need a process of the laptop's beside the run (tests/demo/test_lookup.py), or a warm pool (tests/sandbox)."""
AT_ONCE = 2
"""Jobs of one worker beside each other that fit into two cores: half of one more would only keep the others out."""


def waves() -> list[tuple[str, ...]]:
    """Examples that run beside each other."""
    found: list[tuple[str, ...]] = [(path,) for path in ALWAYS]
    if os.environ.get("LPRL_E2E_EXAMPLES") == "all":
        more = sorted(p.name for p in EXAMPLES.glob("*.yaml") if p.name not in (*ALWAYS, *BESIDE))
        large = [name for name in more if example(name)["spec"]["topology"]["nodes"] > 1]
        small = [name for name in more if name not in large]
        found += [tuple(small[i : i + AT_ONCE]) for i in range(0, len(small), AT_ONCE)] + [(name,) for name in large]
    return found


@pytest.mark.parametrize("paths", waves(), ids=lambda paths: "+".join(p.removesuffix(".yaml") for p in paths))
def test_examples_learn(
    paths: tuple[str, ...], kube: Kube, namespace: str, model: Callable[[Document], None], submit: Callable[[Document], Job]
) -> None:
    manifests = [example(path) for path in paths]
    for manifest in manifests:
        model(manifest)
    jobs = [submit(manifest) for manifest in manifests]

    def lives(job: Job, manifest: Document) -> None:
        comes_up(job, manifest, len(jobs) * START_S)
        ends_well(job, manifest, kube, namespace, len(jobs) * FINISH_S)

    with ThreadPoolExecutor(len(jobs)) as pool:
        list(pool.map(lives, jobs, manifests))


def comes_up(job: Job, manifest: Document, seconds: float) -> None:
    """A Ray head and every worker the plan wants, ready."""
    workers = manifest["spec"]["topology"]["nodes"]
    job.wait_phase("Running", seconds=seconds)
    wait(lambda: job.status()["nodes"]["summary"] == f"{workers}/{workers}", "every worker ready", seconds, job.story)
    roles = [len(job.pods(role)) for role in ("head", "workers", "trainer", "rollout")]
    assert roles[0] == 1 and sum(roles[1:]) == workers


def ends_well(job: Job, manifest: Document, kube: Kube, namespace: str, seconds: float) -> None:
    """Complete in its first attempt, with what it learned in the columns people read, and its pods gone."""
    status = job.wait_phase("Succeeded", seconds=seconds)
    training, steps = status["training"], manifest["spec"]["algorithm"]["steps"]
    assert float(training["reward"]) > LEARNED and float(training["evaluationReward"]) > LEARNED
    assert training["summary"] == f"{steps}/{steps}" and status["attempt"] == 1 and not status.get("failures")
    assert job.condition("Complete")["status"] == "True"
    print(f"{job.name}: reward {training['reward']}, held-out {training['evaluationReward']}, mismatch {training.get('mismatch')}")

    header, row = (line.split() for line in kube.run("-n", namespace, "get", "lprljobs", job.name).splitlines())
    assert header == ["NAME", "PHASE", "PRECISION", "NODES", "CONVERTED", "STEP", "REWARD", "AGE"]
    cells = dict(zip(header, row, strict=False)) if len(row) == len(header) else {}
    precision = manifest["spec"]["precision"]
    assert row[:3] == [job.name, "Succeeded", f"{precision['training']}/{precision['rollout']}"]
    assert f"{steps}/{steps}" in row and (not cells or float(cells["REWARD"]) > LEARNED)
    described = kube.run("-n", namespace, "describe", "lprljob", job.name)
    assert "Complete" in described and "Events:" in described
    wait(lambda: not job.running(), "the cluster is released", 90, job.story)
