"""The chart without a release: lint, unit tests, schemas, drift against the code it installs."""

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart import schemas, tools
from tests.chart.tools import CHART, ROOT, VALUES, one, rendered, template

from lprl_operator.settings import OperatorSettings, parse

FOREIGN = {"ServiceMonitor", "PodMonitor", "PrometheusRule", "Issuer", "Certificate"}
"""Kinds of others: no API server of ours knows them. Unit tests of the chart pin their fields."""
values_files = pytest.mark.parametrize("values", [None, *VALUES], ids=lambda p: p.name.removesuffix("-values.yaml") if p else "defaults")


def flags(values: Path | None) -> list[str]:
    return ["--values", str(values)] if values else []


@values_files
def test_lints(helm: None, values: Path | None) -> None:
    tools.run("helm", "lint", "--strict", str(CHART), *flags(values))


def test_unit_tests_pass(helm: None) -> None:
    words = ("helm-unittest",) if shutil.which("helm-unittest") else ("helm", "unittest")
    tools.run(*words, str(CHART))


@pytest.fixture(scope="module")
def schema_folder(server: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("schemas")
    schemas.write(folder)
    return folder


@values_files
def test_objects_are_what_the_api_server_takes(schema_folder: Path, values: Path | None) -> None:
    text = template(*flags(values)).stdout
    done = conform(schema_folder, text)
    summary = json.loads(done.stdout)["summary"]
    kinds = [d["kind"] for d in yaml.safe_load_all(text) if d]
    assert done.returncode == 0 and summary["invalid"] == summary["errors"] == 0, done.stdout[:3000]
    assert summary["skipped"] == len([k for k in kinds if k in FOREIGN]) and summary["valid"] == len(kinds) - summary["skipped"]


def test_a_misspelt_field_is_found(schema_folder: Path) -> None:
    done = conform(schema_folder, template().stdout.replace("readOnlyRootFilesystem:", "readOnlyRootFileSystem:"))
    assert done.returncode == 1 and "readOnlyRootFileSystem" in done.stdout


def conform(folder: Path, text: str) -> Any:
    where = f"{folder}/{schemas.PATTERN}"
    words = ("kubeconform", "-strict", "-summary", "-output", "json", "-skip", ",".join(sorted(FOREIGN)), "-schema-location", where)
    return tools.run(*words, "-", stdin=text, check=False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("replicas=3", "additional properties 'replicas' not allowed"),
        ("image.tagg=x", "additional properties 'tagg' not allowed"),
        ("image.digest=latest", "does not match pattern"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("replicaCount=two", "/replicaCount"),
        ("config.wrokers=8", "additional properties 'wrokers' not allowed"),
        ("config.workers=0", "/config/workers"),
        ("config.metrics.port=70000", "/config/metrics/port"),
        ("config.metrics=null", "missing property 'metrics'"),
        ("config.namespaces={Upper}", "/config/namespaces/0"),
        ("config.webhook.enabled=true", "additional properties 'enabled' not allowed"),
        ("config.resources.headCPU=1", "additional properties 'headCPU' not allowed"),
        ("webhook.failurePolicy=Maybe", "/webhook/failurePolicy"),
        ("webhook.enabled=yes", "/webhook/enabled"),
        ("webhook.timeoutSeconds=31", "/webhook/timeoutSeconds"),
        ("mode=team,webhook.enabled=true", "webhook.enabled: a team cannot"),
        ("mode=namespace", "/mode"),
        ("config.resources.headLimits.memory=8GB", "/config/resources/headLimits/memory"),
        ("config.resources.driverCpu=-1", "/config/resources/driverCpu"),
        ("crds.install=true", "additional properties 'install' not allowed"),
        ("metrics.readers[0].name=x", "missing property 'namespace'"),
        ("grafana.dashboards.enabled=true", "additional properties 'dashboards' not allowed"),
        ("rbac.aggregate=maybe", "/rbac/aggregate"),
        ("resources.limit.memory=1Gi", "additional properties 'limit' not allowed"),
    ],
)
def test_wrong_values_are_refused(helm: None, change: str, words: str) -> None:
    done = template("--set", change, check=False)
    assert done.returncode != 0 and words in done.stderr


def test_the_crd_is_a_copy() -> None:
    """`make crds` copies it."""
    assert (CHART / "crds-source" / "lowprecisionrljobs.yaml").read_bytes() == (ROOT / "crds" / "lowprecisionrljobs.yaml").read_bytes()


def test_the_rendered_crd_differs_in_metadata_only(helm: None) -> None:
    source = yaml.safe_load((ROOT / "crds" / "lowprecisionrljobs.yaml").read_text())
    made = one(rendered(), "CustomResourceDefinition")
    assert made["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert made["metadata"].pop("labels")["app.kubernetes.io/managed-by"] == "Helm"
    assert made == source


def configuration(*more: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(one(rendered(*more), "ConfigMap", "lprl")["data"]["operator.yaml"])
    return found


@pytest.mark.parametrize("values", [None, *(v for v in VALUES if not v.name.startswith("cluster"))], ids=str)
def test_the_operator_takes_the_configuration(helm: None, values: Path | None) -> None:
    parse(configuration(*flags(values)), "values")


def test_default_values_are_the_operators_defaults(helm: None) -> None:
    """Nobody has to look in two places; a setting added to the operator must be added here."""
    ours, theirs = configuration(), OperatorSettings.model_validate({}).model_dump(mode="json", by_alias=True)
    assert ours["leaderElection"].pop("leaseName") == "lprl" and theirs["leaderElection"].pop("leaseName")
    for name, value in (("serviceName", "lprl-webhook"), ("secretName", "lprl-webhook"), ("configurationName", "lprl-system-lprl")):
        assert ours["webhook"].pop(name) == value and theirs["webhook"].pop(name)
    assert ours == theirs


def test_values_and_schema_have_the_same_names() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert _shape(values, json.loads((CHART / "values.schema.json").read_text())) == []


def test_values_are_described() -> None:
    """A group of values begins with a comment, or is a mapping whose values have them."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    bare = [line for before, line in pairwise(lines) if not before and not line.startswith("#") and not line.endswith(":")]
    assert not bare


def test_one_namespace_gives_no_right_on_the_cluster(helm: None) -> None:
    """An administrator installs it so; what a team can install by itself is test_team.py's."""
    found = rendered(*flags(CHART / "ci" / "one-namespace-values.yaml"), "--set", "crds.enabled=false")
    assert {d["kind"] for d in found} == {
        "ConfigMap",
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Role",
        "RoleBinding",
        "ServiceAccount",
    }
    assert {d["metadata"]["namespace"] for d in found} == {"lprl-system", "ml"}


def _shape(values: Any, schema: Any, path: str = "") -> list[str]:
    """Names that only one of values and schema has."""
    if not isinstance(values, dict) or "properties" not in schema:
        return []
    names = set(schema["properties"]) - {"global"}
    wrong = [f"{path}.{n}" for n in names ^ set(values) if path not in (".webhook.certManager.issuerRef", ".resources")]
    return wrong + [w for n in names & set(values) for w in _shape(values[n], schema["properties"][n], f"{path}.{n}")]


def test_the_versions_agree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert project and chart["version"] == chart["appVersion"] == project[1]
    assert f"ghcr.io/lprl/operator:{project[1]}" in chart["annotations"]["artifacthub.io/images"]
