"""docs/install.md, pasted as it is on an empty cluster: the operator is installed and the first job succeeds."""

from pathlib import Path

from tests.cluster.jobs import Job, example
from tests.cluster.kube import Kube
from tests.cluster.reader import DEMO, follow, leave
from tests.cluster.test_examples import ends_well
from tests.pages import RUN_BY, shown

FINISH_S = 900


def test_the_first_job_as_documented_succeeds(kube: Kube, tmp_path: Path) -> None:
    assert not DEMO.exists(), f"{DEMO} is on this machine, and the page's volumes would be found full: remove it"
    try:
        for section in RUN_BY["tests/cluster/test_first_job.py"]:
            follow(kube, shown(section), tmp_path, FINISH_S)
        ends_well(Job(kube, "lprl-demo", "two-workers"), example("cluster/two-workers.yaml"), kube, "lprl-demo", 5)
    finally:
        leave(kube)
