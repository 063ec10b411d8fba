"""The chart of before is upgraded while jobs run: nothing restarts, and the jobs end well under the operator of now.

As the Deployment rolls it: Helm changes CRD, rights and settings under the running operator, a new operator starts beside it and
waits for the Lease, the old one is told to end. And with nobody there: the old one has ended before the upgrade begins.
Both run with the rights and the settings of their revision of the chart; pods are played. The new revision names another workload
image, as every new version does: what runs keeps the old one.
"""

import re
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart import operators, tools
from tests.chart.tools import CHART, CRD, ROOT, kubectl, read
from tests.contract.hand import Hand, manifest

pytestmark = pytest.mark.cluster
NAMESPACE = "lprl-chart-upgrade"
CHILDREN = "rayclusters,jobs,pods,serviceaccounts,roles,rolebindings,networkpolicies,configmaps"
KINDS = {"RayCluster", "Job", "Pod", "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "ConfigMap"}
TRAINS, CONVERTS = "trains", "converts"
JOBS = f"/apis/lprl.dev/v1alpha1/namespaces/{NAMESPACE}/lowprecisionrljobs"
WHERE = ("--namespace", NAMESPACE)
FIRST_IMAGE, NEXT_IMAGE = "ghcr.io/lprl/workload:0.1.0", "ghcr.io/lprl/workload:next"


@dataclass(frozen=True)
class Installed:
    """Health and metrics ports of the operators of before and of now: they share a machine here."""

    before: tuple[int, int]
    now: tuple[int, int]


def sets(ports: tuple[int, int]) -> list[str]:
    """Values for helm. Metrics without a token: the test reads them."""
    values = (f"config.healthPort={ports[0]}", f"config.metrics.port={ports[1]}", "config.metrics.authentication=false")
    return [word for value in values for word in ("--set", value)]


@pytest.fixture
def installed(server: Path | None, tmp_path: Path) -> Iterator[Installed]:
    if kubectl("get", "crd", CRD, "--ignore-not-found") and server is None:
        pytest.skip("this cluster knows lprl's jobs already, and this test downgrades their CRD")
    one, two, three, four = operators.free_ports(4)
    found = Installed((one, two), (three, four))
    chart = str(tools.previous_chart(tmp_path / "previous"))
    tools.release_namespace(NAMESPACE)
    tools.run("helm", "install", "lprl", chart, *WHERE, "--take-ownership", *sets(found.before))
    tools.established(CRD)
    yield found
    tools.run("helm", "uninstall", "lprl", *WHERE, check=False)
    tools.leave(NAMESPACE)


def phases(name: str) -> Any:
    return (operators.god().get(f"{JOBS}/{name}").get("status") or {}).get("phase")


def children() -> dict[str, tuple[str, str]]:
    """Identity and version of every object the operator or what it made has made."""
    items = read(CHILDREN, "-n", NAMESPACE, "-l", "app.kubernetes.io/managed-by=lprl")["items"]
    return {f"{i['kind']}/{i['metadata']['name']}": (i["metadata"]["uid"], i["metadata"]["resourceVersion"]) for i in items}


def told() -> list[str]:
    """Events about jobs, in no order."""
    events = read("events", "-n", NAMESPACE, "--field-selector", "involvedObject.kind=LowPrecisionRLJob")["items"]
    return sorted(f"{e['involvedObject']['name']}: {e['reason']}" for e in events)


def in_flight(hand: Hand) -> None:
    """One job trains, another converts: its pods run on and on."""
    god = operators.god()
    hand.drives = False
    god.post(JOBS, manifest(TRAINS, NAMESPACE))
    played(hand, lambda: phases(TRAINS) == "Running", "a job that trains")
    hand.roles = frozenset({"inspect"})
    other = {"training": "int4-qat", "rollout": "int4", "int4": {"groupSize": 64}}
    god.post(JOBS, manifest(CONVERTS, NAMESPACE, precision=other))
    played(hand, lambda: phases(CONVERTS) == "Converting", "one that converts")
    operators.until(lambda: "Pending" in conversion_pods(), "its pods")


def conversion_pods() -> list[str]:
    """Phases of conversion pods; the first job's have ended."""
    found = operators.god().get(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector="lprl.dev/role=convert")
    return [p["status"]["phase"] for p in found["items"]]


def played(hand: Hand, done: Any, what: str) -> None:
    def looked() -> Any:
        hand.step()
        return done()

    operators.until(looked, what, 420)  # KubeRay looks at what it held after 300 s only


def upgrade(installed: Installed) -> None:
    """To the chart of now, with the values given before."""
    assert "MESSAGE" not in tools.columns()
    image = ("--set", f"config.resources.image={NEXT_IMAGE}")
    tools.run("helm", "upgrade", "lprl", str(CHART), *WHERE, "--reset-then-reuse-values", *sets(installed.now), *image)
    wanted = yaml.safe_load((ROOT / "crds" / "lowprecisionrljobs.yaml").read_text())
    assert tools.columns() == [c["name"] for c in wanted["spec"]["versions"][0]["additionalPrinterColumns"]]


def leads(name: str) -> bool:
    lease = operators.god().get(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/lprl")
    return bool(lease["spec"].get("holderIdentity") == name)


@pytest.mark.parametrize("way", ["rolled", "with nobody there"])
def test_nothing_restarts(installed: Installed, tmp_path: Path, way: str) -> None:
    hand, folders = Hand(operators.god(), NAMESPACE), (tmp_path / "before", tmp_path / "now")
    for folder in folders:
        folder.mkdir()
    with ExitStack() as old, ExitStack() as new:
        old.enter_context(operators.running(folders[0], NAMESPACE, installed.before[0], "lprl-before"))
        in_flight(hand)
        before, events = children(), told()
        assert {k.split("/")[0] for k in before} == KINDS
        if way == "with nobody there":
            old.close()
        upgrade(installed)
        new.enter_context(operators.running(folders[1], NAMESPACE, installed.now[0], "lprl-now"))
        if way == "rolled":
            assert leads("lprl-before") and looks(installed.now[1]) == 0
            old.close()
        operators.until(lambda: leads("lprl-now") and looks(installed.now[1]) >= 2, "the operator of now has looked at both jobs")
        assert children() == before and told() == events
        hand.roles, hand.drives, images = None, True, set(clusters())

        def both_succeeded() -> bool:
            images.update(clusters())
            return bool(phases(TRAINS) == phases(CONVERTS) == "Succeeded")

        played(hand, both_succeeded, "both succeed")
    assert images == {(TRAINS, FIRST_IMAGE), (CONVERTS, NEXT_IMAGE)}
    once(hand, folders)


def clusters() -> Iterator[tuple[str, str]]:
    """Job and image of every RayCluster there is now."""
    for found in operators.god().get(f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayclusters")["items"]:
        pod = found["spec"]["headGroupSpec"]["template"]["spec"]
        yield from {(found["metadata"]["labels"]["lprl.dev/job"], c["image"]) for c in pod["containers"]}


def looks(metrics_port: int) -> int:
    """How often an operator has reconciled."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10) as answer:
        found = re.search(r"^lprl_reconcile_seconds_count (\S+)$", answer.read().decode(), re.MULTILINE)
    return int(float(found[1])) if found else 0


def once(hand: Hand, folders: tuple[Path, ...]) -> None:
    """Every object was made once, no attempt but the first, and nobody was refused anything."""
    assert all(len(uids) == 1 for uids in hand.seen.values()), hand.seen
    assert {name for kind, name in hand.seen if kind == "RayCluster"} == {f"{TRAINS}-a1", f"{CONVERTS}-a1"}
    for name in (TRAINS, CONVERTS):
        status = read("lprljob", name, "-n", NAMESPACE)["status"]
        assert (status["attempt"], status.get("restartsUsed", 0)) == (1, 0)
    for folder in folders:
        text = (folder / "operator.log").read_text()
        assert "forbidden" not in text.lower() and "traceback" not in text
