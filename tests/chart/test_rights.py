"""The operator with the rights the chart gives it: enough for the whole life of jobs, and none to spare.

The API server's audit log tells what the operator asked for while real jobs lived (their pods are played). Every verb of every rule
must be among it, nothing may have been refused, and each rule is taken away in turn to see the authorizer refuse what needed it.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart import operators, tools
from tests.chart.conftest import AUDITED, NAMESPACE
from tests.chart.pod_monitors import POD_MONITORS
from tests.chart.tools import CHART, kubectl, read
from tests.contract.hand import Hand, manifest

from lprl_operator.decide.actions import Create
from lprl_operator.decide.observed import Key
from lprl_operator.kube.api import MERGE, ApiError, KubeApi
from lprl_operator.places.kube.cache import Cache
from lprl_operator.places.kube.cluster import KubeCluster
from lprl_operator.places.kube.eventlog import EventLog
from lprl_operator.places.kube.reader import Reader
from lprl_operator.settings import Identity, parse
from lprl_operator.webhook import CertificateKeeper, WebhookServer

pytestmark = pytest.mark.cluster
JOBS = "lprl-chart-jobs"
GROUP = "/apis/lprl.dev/v1alpha1/namespaces/{}/lowprecisionrljobs"
SWITCHES = ("webhook.enabled=true", "config.resources.podDisruptionBudget=true", "config.resources.podMonitor=true")


@dataclass(frozen=True)
class Asked:
    """A request of the operator, as a rule names it."""

    verb: str
    group: str
    resource: str
    name: str
    namespace: str
    code: int

    def needs(self, rule: dict[str, Any]) -> bool:
        """Whether this rule allows it."""
        named = rule.get("resourceNames")
        fits = self.group in rule.get("apiGroups", ()) and self.resource in rule.get("resources", ()) and self.verb in rule["verbs"]
        return fits and (not named or self.name in named)


@dataclass(frozen=True)
class World:
    """What the tests share."""

    folder: Path
    god: KubeApi
    audit: Path
    health: int
    metrics: int
    set_ports: tuple[str, ...]

    def asked(self) -> list[Asked]:
        """Everything asked so far, in order."""
        found = []
        for line in self.audit.read_text().splitlines():
            event = json.loads(line)
            ref = event.get("objectRef") or {}
            if event["user"]["username"] == AUDITED and ref:
                resource = ref["resource"] + (f"/{ref['subresource']}" if ref.get("subresource") else "")
                code = (event.get("responseStatus") or {}).get("code", 0)
                found.append(Asked(event["verb"], ref.get("apiGroup", ""), resource, ref.get("name", ""), ref.get("namespace", ""), code))
        return found


def helm(verb: str, *sets: str) -> None:
    flags = [word for s in sets for word in ("--set", s)]
    tools.run("helm", verb, "lprl", str(CHART), "--namespace", NAMESPACE, *(["--take-ownership"] if verb == "install" else []), *flags)


@pytest.fixture(scope="module")
def world(server: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if server is None:
        pytest.skip("needs an API server with an audit log of ours, and KUBECONFIG names somebody's cluster")
    health, metrics, webhook = operators.free_ports(3)
    ports = (f"config.healthPort={health}", f"config.metrics.port={metrics}", f"config.webhook.port={webhook}")
    for name in (NAMESPACE, JOBS):
        tools.release_namespace(name)
    kubectl("apply", "--server-side", "-f", "-", document=POD_MONITORS)
    tools.established("podmonitors.monitoring.coreos.com")
    kubectl("create", "serviceaccount", "prometheus", "-n", JOBS)
    readers = ("metrics.readers[0].name=prometheus", f"metrics.readers[0].namespace={JOBS}")
    helm("install", *SWITCHES, *ports, *readers)
    tools.established("lowprecisionrljobs.lprl.dev")
    yield World(tmp_path_factory.mktemp("operator"), KubeApi.connect(), server, health, metrics, ports)
    tools.run("helm", "uninstall", "lprl", "--namespace", NAMESPACE, check=False)
    tools.leave(NAMESPACE, JOBS)


@pytest.fixture(scope="module")
def lived(world: World) -> list[Asked]:
    """Everything the operator asked during the lives of three jobs, and in what seldom happens."""
    with operators.running(world.folder, NAMESPACE, world.health) as log:
        live(world)
        seldom(world)
        url = f"http://127.0.0.1:{world.metrics}/metrics"
        assert operators.status_of(url) == 401
        assert operators.status_of(url, operators.token("default", JOBS)) == 403
        assert operators.status_of(url, operators.token("prometheus", JOBS)) == 200
    records = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    wrong = [r for r in records if "forbidden" in json.dumps(r).lower() or "traceback" in r]
    assert not wrong, json.dumps(wrong[:3])
    return world.asked()


def live(world: World) -> None:
    """One job suspended while it is inspected; two that share a conversion: one edited and made anew, one deleted after its TTL."""
    god, jobs = world.god, GROUP.format(JOBS)
    hand = Hand(god, JOBS)
    hand.roles = frozenset()
    operators.until(lambda: status_or_none(god, jobs) is not None, "the kind is served")
    god.post(jobs, manifest("early", JOBS, model={"source": {"volume": "models", "path": "other"}}))
    operators.until(lambda: listed(god, f"/apis/batch/v1/namespaces/{JOBS}/jobs"), "an inspect Job")
    god.patch(f"{jobs}/early", {"spec": {"suspend": True}}, MERGE)
    operators.until(lambda: not listed(god, f"/apis/batch/v1/namespaces/{JOBS}/jobs"), "the inspect Job is gone again")
    hand.roles = None
    for name in ("one", "two"):
        more = {"ttlSecondsAfterFinished": 1} if name == "two" else {}
        god.post(jobs, manifest(name, JOBS, failurePolicy={"backoffSeconds": 0}, **more))
    hand.drives = False
    until(hand, lambda: phases(god, jobs).get("one") == phases(god, jobs).get("two") == "Running", "two running jobs")
    # The one takes effect at once, the other with the next attempt, which so has a RayCluster of its own.
    god.patch(f"{jobs}/one", {"spec": {"stability": {"patience": 7}, "podTemplate": {"env": [{"name": "NOTE", "value": "7"}]}}}, MERGE)
    control = f"/api/v1/namespaces/{JOBS}/configmaps/one-a1-progress"
    until(hand, lambda: '"patience": 7' in god.get(control)["data"]["control.json"], "the driver is told of the edit")
    hand.end_driver(1, "crashed")
    hand.drives = True
    wanted = {"early": "Suspended", "one": "Succeeded"}
    until(hand, lambda: phases(god, jobs) == wanted, f"{wanted}, and two deleted")


def seldom(world: World) -> None:
    """The operator's own code for what does not happen within seconds, as the operator's account."""
    settings = parse(yaml.safe_load((world.folder / "operator.yaml").read_text()), "release")
    mine = account_api(world.folder)
    cluster = KubeCluster(mine, Cache(), EventLog(mine, "test"))
    god, jobs = world.god, GROUP.format(JOBS)
    god.post(jobs, manifest("again", JOBS))
    hand, clusters = Hand(god, JOBS, kubelet=False), f"/apis/ray.io/v1/namespaces/{JOBS}/rayclusters"
    until(hand, lambda: listed(god, clusters), "a cluster that does not get ready")
    # A name that is taken (the operator died after it made the object): it looks whose it is.
    for kind in ("serviceaccount", "role", "rolebinding", "networkpolicy", "poddisruptionbudget", "podmonitor", "raycluster", "configmap"):
        for found in read(kind, "-n", JOBS, "-l", "lprl.dev/job=again")["items"]:
            cluster.apply([Create(bare(found))])
    for found in read("job", "-n", JOBS)["items"]:  # made at the same time for two jobs that share it
        cluster.apply([Create(bare(found))])
    reader = Reader(mine, Cache())
    assert reader._lost_since("no-such-node", datetime.now(UTC)) is not None
    # Much later: KubeRay may have refused the cluster (it says so by an event alone).
    key = Key(JOBS, "again")
    document, _ = cluster.live_read(key)
    assert document is not None
    reader.children(key, document, datetime.now(UTC) + timedelta(hours=1))
    # When two thirds of its life are over, the certificate is renewed.
    keeper = CertificateKeeper(mine, settings.webhook, Identity(NAMESPACE, "lprl-0"), WebhookServer(0), lambda: True)
    keeper.step(datetime.now(UTC) + timedelta(days=settings.webhook.validity_days * 0.9))


def until(hand: Hand, done: Callable[[], Any], what: str) -> None:
    """Play the pods until something is so."""

    def looked() -> Any:
        hand.step()
        return done()

    operators.until(looked, what, 420)  # KubeRay looks at what it held after 300 s only


def account_api(folder: Path) -> KubeApi:
    """The API as the operator's account."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(folder / "lprl.kubeconfig"))
        return KubeApi.connect()


def bare(found: dict[str, Any]) -> dict[str, Any]:
    """A live object as it was created."""
    meta = {k: v for k, v in found["metadata"].items() if k in ("name", "namespace", "labels", "ownerReferences")}
    made = {**{k: v for k, v in found.items() if k != "status"}, "metadata": meta}
    if found["kind"] == "Job":  # the API server's own selector
        made["spec"] = {k: v for k, v in found["spec"].items() if k != "selector"}
        for label in ("controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"):
            made["spec"]["template"]["metadata"].get("labels", {}).pop(label, None)
    return made


def listed(api: KubeApi, path: str) -> list[Any]:
    return list(api.get(path)["items"])


def phases(api: KubeApi, jobs: str) -> dict[str, str]:
    return {j["metadata"]["name"]: (j.get("status") or {}).get("phase", "") for j in listed(api, jobs)}


def status_or_none(api: KubeApi, path: str) -> Any:
    try:
        return api.get(path)
    except ApiError:
        return None


def rules() -> list[tuple[str, dict[str, Any]]]:
    """Every rule bound to the operator, with the kind/name that holds it."""
    cluster = read("clusterrole", f"{NAMESPACE}-lprl")["rules"]
    own = read("role", "lprl-self", "-n", NAMESPACE)["rules"]
    return [(f"clusterrole/{NAMESPACE}-lprl", r) for r in cluster] + [("role/lprl-self", r) for r in own]


def test_nothing_was_refused(lived: list[Asked]) -> None:
    assert len(lived) > 100 and not [a for a in lived if a.code in (401, 403)]


def test_every_verb_of_every_rule_was_used(lived: list[Asked]) -> None:
    spare = [
        (resource, verb)
        for _, rule in rules()
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if not any(a.needs({**rule, "resources": [resource], "verbs": [verb]}) for a in lived)
    ]
    assert not spare


def test_without_any_one_rule_something_fails(world: World, lived: list[Asked]) -> None:
    """The real authorizer, each rule taken away in turn."""
    held = rules()
    for where, rule in held:
        others = [r for w, r in held if w == where and r is not rule]
        asked = next(a for a in lived if a.needs(rule) and not any(a.needs(r) for r in others))
        namespaced = ["-n", NAMESPACE] if where.startswith("role/") else []
        assert allowed(world.god, asked), asked
        for content, verdict in ((others, False), ([r for w, r in held if w == where], True)):
            patch = json.dumps([{"op": "replace", "path": "/rules", "value": content}])
            kubectl("patch", *where.split("/"), *namespaced, "--type=json", "-p", patch)
            settle(world.god, asked, verdict)


def settle(god: KubeApi, asked: Asked, verdict: bool) -> None:
    """The authorizer learns of a changed role by a watch."""
    operators.until(lambda: allowed(god, asked) == verdict, f"{asked} allowed: {verdict}", 15, 0.02)


def allowed(god: KubeApi, asked: Asked) -> bool:
    """What the authorizer says of a request of the operator."""
    resource, _, subresource = asked.resource.partition("/")
    attributes = {"verb": asked.verb, "group": asked.group, "resource": resource, "subresource": subresource}
    attributes |= {"namespace": asked.namespace, "name": asked.name}
    spec = {"user": AUDITED, "resourceAttributes": attributes}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    return bool(god.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)["status"]["allowed"])


def test_it_cannot_give_away_more_than_it_has(world: World, lived: list[Asked]) -> None:
    mine, path = account_api(world.folder), f"/apis/rbac.authorization.k8s.io/v1/namespaces/{JOBS}/roles"
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "greedy"}}
    with pytest.raises(ApiError, match="attempting to grant RBAC permissions not currently held"):
        mine.post(path, {**role, "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]})
    for secret in (f"/api/v1/namespaces/{JOBS}/secrets", f"/api/v1/namespaces/{NAMESPACE}/secrets", "/api/v1/secrets"):
        with pytest.raises(ApiError, match="forbidden"):
            mine.get(secret)


def test_it_serves_one_namespace_with_rights_there_only(world: World, lived: list[Asked], tmp_path: Path) -> None:
    """The same release, upgraded: no cluster-scoped right is left, and a job lives."""
    before, god, jobs = len(world.asked()), world.god, GROUP.format(JOBS)
    for name in phases(god, jobs):
        god.delete(f"{jobs}/{name}", {})
    helm("upgrade", *world.set_ports, f"config.namespaces={{{JOBS}}}", "config.metrics.authentication=false")
    assert "NotFound" in kubectl("get", "clusterrole", f"{NAMESPACE}-lprl", check=False)
    hand = Hand(god, JOBS)
    with operators.running(tmp_path, NAMESPACE, world.health) as log:
        god.post(jobs, manifest("local", JOBS))
        until(hand, lambda: phases(god, jobs).get("local") == "Succeeded", "a job that succeeds")
    time.sleep(0.2)
    refused = [a for a in world.asked()[before:] if a.code == 403]
    assert not refused and "forbidden" not in log.read_text().lower()
