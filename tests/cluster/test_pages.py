"""The pages about installing, upgrading, queues and uninstalling, pasted as they are, on the cluster the other tests leave behind.

The last tests: they take the operator, the CRD and every job away, and then install from nothing as the README does.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cluster.conftest import SYSTEM, node
from tests.cluster.jobs import Job
from tests.cluster.kube import Kube
from tests.cluster.reader import follow, leave
from tests.pages import RUN_BY, Section, shown

SECTIONS = RUN_BY["tests/cluster/test_pages.py"]
PATIENCE_S = 900
README, KUEUE, ONE_NAMESPACE = SECTIONS[-2], SECTIONS[-1], ("docs/install.md", "One namespace, without cluster rights")


def nothing_installed(kube: Kube) -> None:
    """A cluster that never saw lprl."""
    for namespace, release in ((SYSTEM, "lprl"), ("team-a", "lprl"), (SYSTEM, "lprl-cluster")):
        kube.run("uninstall", release, "--namespace", namespace, "--wait", "--ignore-not-found", program="helm", timeout_s=180)
    kube.run("delete", "crd", "lowprecisionrljobs.lprl.dev", "--ignore-not-found")
    leave(kube)


def kueue(kube: Kube) -> None:
    """Kueue, and the page's namespace."""
    node(kube.kubeconfig.parent, "--kuberay", "--kueue")
    kube.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a"}}])


GIVEN: dict[Section, Callable[[Kube], None]] = {README: nothing_installed, KUEUE: kueue}
"""What a section takes for granted, beside what the sections before it left."""


@pytest.mark.parametrize("section", SECTIONS, ids=": ".join)
def test_the_commands_of_a_page_do_what_it_says(section: Section, kube: Kube, chart: None, tmp_path: Path) -> None:
    GIVEN.get(section, lambda _: None)(kube)
    follow(kube, shown(section), tmp_path, PATIENCE_S)
    if section == README:
        assert Job(kube, "lprl-demo", "two-workers").status()["phase"] == "Succeeded"
        leave(kube)
