"""One namespace without rights on the cluster: an administrator's one command, then a team's, on a real API server as that team."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.chart import tools
from tests.chart.tools import CHART, CRD, kubectl, read

from lprl_api.catalog.presets import preset_manifest

pytestmark = pytest.mark.cluster
ADMINISTRATION, TEAM, OTHER = "lprl-chart-admin", "lprl-chart-team", "lprl-chart-other"
OPERATOR = f"system:serviceaccount:{TEAM}:lprl"
STATUS = ("update", "lowprecisionrljobs", "--subresource=status")


def install(namespace: str, *flags: str, check: bool = True) -> str:
    done = tools.run("helm", "install", "lprl", str(CHART), "--namespace", namespace, *flags, check=check)
    return done.stdout + done.stderr


def can(user: str, *what: str, namespace: str = TEAM) -> bool:
    return "yes" in kubectl("auth", "can-i", *what, f"--as={user}", "-n", namespace, check=False).splitlines()


def until(done: Callable[[], Any], what: str, seconds: float = 180.0) -> None:
    """Aggregated roles are filled by a controller, and known to the authorizer by a watch."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@pytest.fixture(scope="module")
def namespaces(server: Path | None) -> Iterator[None]:
    """Three namespaces; `lead` is admin of one of them, `mate` may edit there."""
    if server is None:
        pytest.skip("an API server of ours is needed: this installs and removes cluster roles")
    for name in (ADMINISTRATION, TEAM, OTHER):
        tools.release_namespace(name)
    for user, role in (("lead", "admin"), ("mate", "edit")):
        kubectl("create", "rolebinding", user, "-n", TEAM, f"--clusterrole={role}", f"--user={user}")
    yield
    for name in (TEAM, ADMINISTRATION):
        tools.run("helm", "uninstall", "lprl", "--namespace", name, "--ignore-not-found", check=False)
    tools.leave(ADMINISTRATION, TEAM, OTHER)


def test_a_team_installs_into_its_namespace_after_one_command_of_an_administrator(namespaces: None) -> None:
    as_lead = ("--kube-as-user", "lead", "--set", "mode=team")
    until(lambda: can("lead", "create", "rolebindings"), "lead is admin")
    assert '"lprl-team-operator" not found' in install(TEAM, *as_lead, check=False), "nobody gave a right yet"
    tools.run("helm", "uninstall", "lprl", "--namespace", TEAM, "--ignore-not-found", check=False)

    assert "mode=team" in install(ADMINISTRATION, "--take-ownership", "--set", "mode=cluster")
    tools.established(CRD)
    assert not read("deployment", "-n", ADMINISTRATION)["items"], "no operator comes with it"
    until(lambda: can("lead", "bind", "clusterroles/lprl-team-operator"), "admins may bind")
    until(lambda: can("lead", "create", "lowprecisionrljobs") and can("mate", "create", "lowprecisionrljobs"), "users may make jobs")

    install(TEAM, *as_lead)
    until(lambda: can(OPERATOR, *STATUS), "the operator has its rights")
    rules = read("clusterrole", "lprl-team-operator")["rules"]
    assert len(rules) >= 9
    for rule in rules:
        if "monitoring.coreos.com" in rule["apiGroups"]:
            continue  # a kind that is not served here, of which kubectl can ask nothing
        for resource in rule["resources"]:
            kind, _, part = resource.partition("/")
            what = (kind if rule["apiGroups"] == [""] else f"{kind}.{rule['apiGroups'][0]}", *([f"--subresource={part}"] if part else []))
            for verb in rule["verbs"]:
                assert can(OPERATOR, verb, *what), (verb, *what)
    assert not can(OPERATOR, "list", "pods", namespace=OTHER) and not can(OPERATOR, *STATUS, namespace=OTHER)
    assert not can(OPERATOR, "get", "nodes") and not can(OPERATOR, "get", "secrets")
    for user in ("lead", "mate"):
        assert not can(user, *STATUS), "status holds the attempt number that fences old attempts"
    settings = read("configmap", "lprl", "-n", TEAM)["data"]["operator.yaml"]
    assert f"- {TEAM}" in settings and "authentication: false" in settings

    job = preset_manifest("qwen3-4b-fp8") | {"metadata": {"name": "first", "namespace": TEAM}}
    until(lambda: "created" in kubectl("create", "--as=mate", "-f", "-", document=job, check=False), "a job of the team")
    tools.run("helm", "uninstall", "lprl", "--namespace", TEAM, "--kube-as-user", "lead")
    assert read("lowprecisionrljobs", "-n", TEAM)["items"], "jobs stay"


def test_an_editor_may_not_install(namespaces: None) -> None:
    said = install(TEAM, "--kube-as-user", "mate", "--set", "mode=team", check=False)
    tools.run("helm", "uninstall", "lprl", "--namespace", TEAM, "--ignore-not-found", check=False)
    assert "forbidden" in said
