"""The chart as a release on a real API server: installed, upgraded, uninstalled. No node is needed: no pod has to run."""

import copy
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart import tools
from tests.chart.tools import CHART, CRD, ROOT, kubectl, read

from lprl_api.catalog.presets import preset_manifest

pytestmark = pytest.mark.cluster
NAMESPACE = "lprl-chart-install"
CONFIGURATION = f"{NAMESPACE}-lprl"
OWNER = r"meta\.helm\.sh/release-namespace"
NAME = "kept"
HOOK = "validatingwebhookconfiguration"
BUNDLE = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg=="


def helm(verb: str, *flags: str, chart: Path = CHART) -> str:
    """helm on the release of this test."""
    rest = () if verb == "uninstall" else (str(chart),)
    return tools.run("helm", verb, "lprl", *rest, "--namespace", NAMESPACE, *flags).stdout


def job(name: str = NAME) -> dict[str, Any]:
    found = preset_manifest("qwen3-4b-fp8")
    found["metadata"] = {"name": name, "namespace": NAMESPACE}
    return found


def wait(kind: str, name: str, seconds: float = 180.0) -> dict[str, Any]:
    """Wait until an object is served (a CRD just made is not, at once)."""
    deadline = time.monotonic() + seconds
    while True:
        done = tools.run("kubectl", "get", kind, name, "-n", NAMESPACE, "-o", "json", check=False)
        if done.returncode == 0:
            return dict(json.loads(done.stdout))
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.2)


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This chart with a CRD of before: an upgrade must change nothing else. (test_upgrade.py has the chart of before.)"""
    folder = tmp_path_factory.mktemp("previous") / "lprl"
    shutil.copytree(CHART, folder)
    (folder / "crds-source" / "lowprecisionrljobs.yaml").write_text(tools.older_crd())
    chart = (folder / "Chart.yaml").read_text()
    (folder / "Chart.yaml").write_text(chart.replace("\nversion: ", "\nversion: 0.0.9+was-"))
    return folder


@pytest.fixture(scope="module")
def release(server: Path | None, previous: Path) -> Iterator[str]:
    """The chart of before, in a namespace that enforces `restricted`, and a job. Yields what helm said."""
    level = "pod-security.kubernetes.io/enforce=restricted"
    owner = kubectl("get", "crd", CRD, "--ignore-not-found", "-o", f"jsonpath={{.metadata.annotations.{OWNER}}}")
    if owner and server is None:
        pytest.skip(f"this cluster has lprl installed in namespace {owner}: uninstall it there, the CRD and its jobs stay")
    tools.release_namespace(NAMESPACE)
    kubectl("label", "namespace", NAMESPACE, level)
    # Other tests may have left the CRD; a newcomer does not need --take-ownership.
    said = helm("install", "--take-ownership", "--set", "webhook.enabled=true", chart=previous)
    tools.established(CRD)
    deadline = time.monotonic() + 180
    while "created" not in kubectl("apply", "-f", "-", document=job(), check=False):
        assert time.monotonic() < deadline, "the kind is not served"
        time.sleep(0.2)
    yield said
    tools.run("helm", "uninstall", "lprl", "--namespace", NAMESPACE, "--ignore-not-found", check=False)
    tools.leave(NAMESPACE)


def test_notes_tell_what_is_next(release: str) -> None:
    assert "kubectl get lprljobs" in release
    has_kuberay = "rayclusters" in kubectl("api-resources", "--api-group=ray.io")
    assert ("WARNING" in release) == (not has_kuberay)


def test_pods_pass_the_restricted_level(release: str) -> None:
    """The API server itself says so; a pod with one line less is refused, so the level is really enforced."""
    template = read("deployment", "lprl", "-n", NAMESPACE)["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "psa", "namespace": NAMESPACE}, "spec": template["spec"]}
    assert "created" in kubectl("create", "--dry-run=server", "-f", "-", document=pod)
    loose = copy.deepcopy(pod)
    del loose["spec"]["containers"][0]["securityContext"]["capabilities"]
    assert "violates PodSecurity" in kubectl("create", "--dry-run=server", "-f", "-", document=loose, check=False)


def test_the_cluster_roles_of_users_grow(release: str) -> None:
    deadline = time.monotonic() + 180
    for role, verb, want in (
        ("view", "get", True),
        ("view", "create", False),
        ("edit", "create", True),
        ("admin", "deletecollection", True),
    ):
        while True:
            rules = [r for r in read("clusterrole", role).get("rules") or () if "lprl.dev" in r.get("apiGroups", ())]
            if any(verb in r["verbs"] for r in rules) == want and rules:
                break
            assert time.monotonic() < deadline, (role, rules)
            time.sleep(0.2)
        assert not any({"update", "patch"} & set(r["verbs"]) and "lowprecisionrljobs/status" in r["resources"] for r in rules)


def test_an_upgrade_changes_what_it_should_and_no_more(release: str) -> None:
    """The operator's caBundle stays, the CRD is upgraded, pods are replaced only for a change of theirs, the job is not touched."""
    patch = [{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": BUNDLE}]
    kubectl("patch", HOOK, CONFIGURATION, "--type=json", "-p", json.dumps(patch))
    before, its_job = read("deployment", "lprl", "-n", NAMESPACE), read("lprljob", NAME, "-n", NAMESPACE)

    helm("upgrade", "--set", "webhook.enabled=true", "--set", "webhook.timeoutSeconds=7")
    hook = read(HOOK, CONFIGURATION)["webhooks"][0]
    assert hook["clientConfig"]["caBundle"] == BUNDLE and hook["timeoutSeconds"] == 7
    assert read("deployment", "lprl", "-n", NAMESPACE)["metadata"]["generation"] == before["metadata"]["generation"]
    wanted = yaml.safe_load((ROOT / "crds" / "lowprecisionrljobs.yaml").read_text())
    assert tools.columns() == [c["name"] for c in wanted["spec"]["versions"][0]["additionalPrinterColumns"]]

    helm("upgrade", "--set", "webhook.enabled=true", "--set", "config.workers=4")
    after = read("deployment", "lprl", "-n", NAMESPACE)
    checksums = [d["spec"]["template"]["metadata"]["annotations"]["checksum/config"] for d in (before, after)]
    assert checksums[0] != checksums[1] and "workers: 4" in read("configmap", "lprl", "-n", NAMESPACE)["data"]["operator.yaml"]
    assert read(HOOK, CONFIGURATION)["webhooks"][0]["clientConfig"]["caBundle"] == BUNDLE
    tools.run("helm", "rollback", "lprl", "--namespace", NAMESPACE)
    assert read(HOOK, CONFIGURATION)["webhooks"][0]["clientConfig"]["caBundle"] == BUNDLE
    assert read("lprljob", NAME, "-n", NAMESPACE)["metadata"]["resourceVersion"] == its_job["metadata"]["resourceVersion"]


def test_failure_policy_is_what_values_say(release: str) -> None:
    """No operator answers here: with Ignore jobs come in, with Fail nothing does, except the operator's own status."""
    helm("upgrade", "--set", "webhook.enabled=true")
    assert "created" in eventually("created", "create", "--dry-run=server", "-f", "-", document=job("other"))
    helm("upgrade", "--set", "webhook.enabled=true", "--set", "webhook.failurePolicy=Fail")
    eventually("failed calling webhook", "create", "--dry-run=server", "-f", "-", document=job("other"))
    assert "failed calling webhook" in kubectl("label", "lprljob", NAME, "-n", NAMESPACE, "a=b", check=False)
    status = ("patch", "lprljob", NAME, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", '{"status":{"phase":"Pending"}}')
    assert "patched" in kubectl(*status)
    helm("upgrade", "--set", "webhook.enabled=false")
    assert "NotFound" in kubectl("get", HOOK, CONFIGURATION, check=False)


def eventually(words: str, *command: str, document: Any) -> str:
    """An API server takes a second to learn of a changed webhook."""
    deadline = time.monotonic() + 180
    while words not in (said := kubectl(*command, document=document, check=False)):
        assert time.monotonic() < deadline, said
        time.sleep(0.3)
    return said


def test_uninstall_keeps_the_jobs_and_a_new_install_takes_them_over(release: str) -> None:
    """Last: it ends the release."""
    uid = read("lprljob", NAME, "-n", NAMESPACE)["metadata"]["uid"]
    helm("uninstall")
    left = kubectl(
        "get", "clusterrole,clusterrolebinding", "-l", "app.kubernetes.io/instance=lprl,app.kubernetes.io/name=lprl", "-o", "name"
    )
    assert CONFIGURATION not in left and "NotFound" in kubectl("get", "deployment", "lprl", "-n", NAMESPACE, check=False)
    assert read("crd", CRD)["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    helm("install")  # by the book, without --take-ownership
    assert wait("lprljob", NAME)["metadata"]["uid"] == uid
    helm("uninstall")
    assert read("lprljob", NAME, "-n", NAMESPACE)["metadata"]["uid"] == uid
