"""The pages about installing, upgrading, queues and uninstalling, pasted as they are, on the cluster the other tests leave behind.

The last tests: they take the operator, the CRD and every job away, and then install from nothing as the README does.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cluster.conftest import SYSTEM, node
from tests.cluster.jobs import Job, tiny
from tests.cluster.kube import Kube, wait
from tests.cluster.reader import follow, leave
from tests.pages import RUN_BY, Section, shown

SECTIONS = RUN_BY["tests/cluster/test_pages.py"]
PATIENCE_S = 900
README, KUEUE = ("README.md", "State of the project"), ("docs/kueue.md", "Setting it up")
ONE_NAMESPACE, BY_HAND = ("docs/install.md", "One namespace, without cluster rights"), ("docs/upgrade.md", "The CRD")
TEAM, LEAD = "team-a", "lead"
"""The page's team, and its admin, who has no right outside of it."""


def no_release(kube: Kube) -> None:
    """The CRD, which stays, and no operator."""
    for release, namespace in (("lprl", SYSTEM), ("lprl", TEAM), ("lprl-cluster", SYSTEM)):
        kube.run("uninstall", release, "--namespace", namespace, "--wait", "--ignore-not-found", program="helm", timeout_s=180)


def nothing_installed(kube: Kube) -> None:
    """A cluster that never saw lprl."""
    no_release(kube)
    kube.run("delete", "crd", "lowprecisionrljobs.lprl.dev", "--ignore-not-found")
    leave(kube)


def kueue(kube: Kube) -> None:
    """Kueue, and the page's namespace."""
    node(kube.kubeconfig.parent, "--kuberay", "--kueue")
    kube.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TEAM}}])


def first_job_succeeded(kube: Kube) -> None:
    """It is there, and well."""
    assert Job(kube, "lprl-demo", "two-workers").status()["phase"] == "Succeeded"
    leave(kube)


def team_is_served(kube: Kube) -> None:
    """Its admin makes a job, and the team's operator takes it up."""
    lead = ("--as", LEAD, "-n", TEAM)
    kube.run(*lead, "rollout", "status", "deployment/lprl", "--timeout=3m", timeout_s=240)
    kube.run(*lead, "apply", "-f", "-", text=json.dumps(tiny("theirs")))
    job = Job(kube, TEAM, "theirs")
    wait(lambda: "persistentvolumeclaim" in str(job.status().get("message")), "it says what it waits for", 60, job.story)
    job.delete()


GIVEN: dict[Section, Callable[[Kube], None]] = {BY_HAND: no_release, README: nothing_installed, KUEUE: kueue}
"""What a section takes for granted, beside what the sections before it left."""
THEN: dict[Section, Callable[[Kube], None]] = {ONE_NAMESPACE: team_is_served, README: first_job_succeeded}
"""What holds after it, beside that each command did what it does."""


@pytest.mark.parametrize("section", SECTIONS, ids=": ".join)
def test_the_commands_of_a_page_do_what_it_says(section: Section, kube: Kube, chart: None, tmp_path: Path) -> None:
    GIVEN.get(section, lambda _: None)(kube)
    follow(kube, shown(section), tmp_path, PATIENCE_S, last_as=LEAD if section == ONE_NAMESPACE else "")
    THEN.get(section, lambda _: None)(kube)
