"""The pages about installing, upgrading, queues and uninstalling, pasted as they are, on the cluster the other tests leave behind.

The last tests: they take the operator, the CRD and every job away, and then install from nothing as the README does.
A command that exits with 0 has been taken, no more: what a page says comes of it is looked at afterwards.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.cluster.conftest import SYSTEM
from tests.cluster.jobs import START_S, Job, tiny
from tests.cluster.kube import Kube, wait
from tests.cluster.reader import follow, leave
from tests.pages import ROOT, RUN_BY, Section, shown

SECTIONS = RUN_BY["tests/cluster/test_pages.py"]
PATIENCE_S = 900
README, KUEUE = ("README.md", "State of the project"), ("docs/kueue.md", "Setting it up")
ONE_NAMESPACE, BY_HAND = ("docs/install.md", "One namespace, without cluster rights"), ("docs/upgrade.md", "The CRD")
TEAM, LEAD = "team-a", "lead"
"""The page's team, and its admin, who has no right outside of it."""
DEMO_NAMESPACE = "lprl-demo"
"""Where the first job as documented runs."""


def no_release(kube: Kube) -> None:
    """The CRD, which stays, and no operator."""
    for release, namespace in (("lprl", SYSTEM), ("lprl", TEAM), ("lprl-cluster", SYSTEM)):
        kube.run("uninstall", release, "--namespace", namespace, "--wait", "--ignore-not-found", program="helm", timeout_s=180)


def nothing_installed(kube: Kube) -> None:
    """A cluster that never saw lprl."""
    no_release(kube)
    kube.run("delete", "crd", "lowprecisionrljobs.lprl.dev", "--ignore-not-found")
    leave(kube)


def upgraded(kube: Kube) -> None:
    """The operator of the new release serves."""
    kube.run("--namespace", SYSTEM, "rollout", "status", "deployment/lprl", "--timeout=3m", timeout_s=240)


def wrong_jobs_are_refused(kube: Kube) -> None:
    """The webhook answers, for what the schema does not say: such a topP leaves one token."""
    upgraded(kube)
    wrong = json.dumps(tiny("wrong", sampling__topP=1e-9))

    def refused() -> bool:
        apply = f"kubectl -n default apply --dry-run=server -f - 2>&1 <<'END' || true\n{wrong}\nEND\n"
        return "admission webhook" in kube.paste(apply, ROOT, 60)

    wait(refused, "the webhook refuses a wrong job", 90)


def observed(kube: Kube) -> None:
    """What scrapes and shows it is there."""
    upgraded(kube)
    made = kube.run("-n", SYSTEM, "get", "services,configmaps", "-o", "name")
    assert "service/lprl-metrics" in made and "dashboard" in made, made


def nothing_left(kube: Kube) -> None:
    """Neither the kind nor who serves it."""
    named = ("--ignore-not-found", "-o", "name")
    kind = kube.run("get", "crd", "lowprecisionrljobs.lprl.dev", *named)
    assert not kind + kube.run("-n", SYSTEM, "get", "deployment/lprl", *named)


def first_job_succeeded(kube: Kube) -> None:
    """It is there, and well."""
    assert Job(kube, DEMO_NAMESPACE, "two-workers").status()["phase"] == "Succeeded"


def queued_job_runs(kube: Kube) -> None:
    """Everything of it went through the queue, and was let go: it trains."""
    job = Job(kube, DEMO_NAMESPACE, "queued")
    job.wait_phase("Running", "Succeeded", seconds=2 * START_S)
    listed = kube.run("-n", DEMO_NAMESPACE, "get", "workloads", "-o", "json")
    owners = {w["metadata"]["ownerReferences"][0]["kind"] for w in json.loads(listed)["items"] if w["spec"]["queueName"] == "blue"}
    assert owners == {"Job", "RayCluster"}, listed
    job.delete()


def team_is_served(kube: Kube) -> None:
    """Its admin makes a job, and the team's operator takes it up."""
    lead = ("--as", LEAD, "-n", TEAM)
    kube.run(*lead, "rollout", "status", "deployment/lprl", "--timeout=3m", timeout_s=240)
    kube.run(*lead, "apply", "-f", "-", text=json.dumps(tiny("theirs")))
    job = Job(kube, TEAM, "theirs")
    wait(lambda: "persistentvolumeclaim" in str(job.status().get("message")), "it says what it waits for", 60, job.story)
    job.delete()


GIVEN: dict[Section, Callable[[Kube], None]] = {BY_HAND: no_release, README: nothing_installed}
"""What a section takes for granted, beside what the sections before it left."""
THEN: dict[Section, Callable[[Kube], None]] = {
    ("docs/upgrade.md", "The upgrade"): upgraded,
    ("docs/install.md", "Values worth knowing"): wrong_jobs_are_refused,
    ("docs/install.md", "Metrics, dashboard, alerts"): observed,
    ("docs/upgrade.md", "Back"): upgraded,
    ("docs/install.md", "Uninstall"): nothing_left,
    ONE_NAMESPACE: team_is_served,
    BY_HAND: upgraded,
    README: first_job_succeeded,
    KUEUE: queued_job_runs,
}
"""What holds after it, beside that each command did what it does. The sections that are not here change nothing."""


@pytest.fixture(scope="module", autouse=True)
def tidy(kube: Kube) -> Iterator[None]:
    """The first job's namespace and folders stay for the pages behind it, and are gone in the end."""
    yield
    leave(kube)


@pytest.mark.parametrize("section", SECTIONS, ids=": ".join)
def test_the_commands_of_a_page_do_what_it_says(section: Section, kube: Kube, chart: None, tmp_path: Path) -> None:
    GIVEN.get(section, lambda _: None)(kube)
    follow(kube, shown(section), tmp_path, PATIENCE_S, last_as=LEAD if section == ONE_NAMESPACE else "")
    THEN.get(section, lambda _: None)(kube)
