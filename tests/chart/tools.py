"""helm and its linters: where they are, and how they are run."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "lprl"
PREVIOUS = Path(__file__).parent / "previous"
CRD = "lowprecisionrljobs.lprl.dev"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
NEEDED = ("helm", "helm-unittest", "kubeconform", "kubectl")
KUBE_VERSION = "1.35.0"
"""What `helm template` renders for; nothing the chart makes depends on it."""


def missing() -> list[str]:
    """Tools that are not on PATH (helm-unittest may also be a plugin of helm)."""
    found = [tool for tool in NEEDED if shutil.which(tool) is None]
    if "helm-unittest" in found and "helm" not in found and run("helm", "unittest", "--help", check=False).returncode == 0:
        found.remove("helm-unittest")
    return found


def run(*words: str, check: bool = True, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program; what it said is in the failure."""
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, **environment})
    assert not check or done.returncode == 0, f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done


def kubectl(*words: str, document: Any = None, check: bool = True) -> str:
    """Run kubectl, a document on its standard input; both streams."""
    done = run("kubectl", *words, stdin=None if document is None else json.dumps(document), check=check)
    return done.stdout + done.stderr


def read(*words: str) -> Any:
    """`kubectl get ... -o json`, parsed."""
    return json.loads(run("kubectl", "get", *words, "-o", "json").stdout)


def older_crd() -> str:
    """Return a CRD of before: it lacks the last column."""
    found = yaml.safe_load((CHART / "crds-source" / "lowprecisionrljobs.yaml").read_text())
    del found["spec"]["versions"][0]["additionalPrinterColumns"][-1]
    return str(yaml.safe_dump(found))


def previous_chart(folder: Path) -> Path:
    """Write the chart of before into a folder."""
    shutil.copytree(PREVIOUS, folder)
    (folder / "crds-source").mkdir()
    (folder / "crds-source" / "lowprecisionrljobs.yaml").write_text(older_crd())
    return folder


def columns() -> list[str]:
    """Names of the columns `kubectl get` shows, as the API server has them."""
    return [c["name"] for c in read("crd", CRD)["spec"]["versions"][0]["additionalPrinterColumns"]]


def release_namespace(name: str) -> None:
    """Make a namespace, waiting for one of that name that still ends."""
    deadline = time.monotonic() + 180
    while "created" not in (said := kubectl("create", "namespace", name, check=False)):
        assert time.monotonic() < deadline, said
        time.sleep(0.5)


def leave(*namespaces: str) -> None:
    """Delete the jobs, so that no operator is refused events about them while their namespaces go, and the namespaces, in their own time.

    The CRD is left to whoever installs next (or had made it by hand before).
    """
    for name in namespaces:
        kubectl("delete", "lowprecisionrljobs", "--all", "-n", name, check=False)
        kubectl("delete", "namespace", name, "--wait=false", check=False)
    kubectl("annotate", "crd", CRD, "meta.helm.sh/release-name-", "meta.helm.sh/release-namespace-", "helm.sh/resource-policy-")
    kubectl("label", "crd", CRD, "app.kubernetes.io/managed-by-")


def established(crd: str, seconds: float = 180.0) -> None:
    """Wait until a kind is served. (`kubectl wait` fails on a CRD that has no conditions yet.)"""
    deadline = time.monotonic() + seconds
    path = "jsonpath={.status.conditions[?(@.type=='Established')].status}"
    while "True" not in kubectl("get", "crd", crd, "-o", path, check=False):
        assert time.monotonic() < deadline, f"{crd} is not served"
        time.sleep(0.2)


def template(*flags: str, release: str = "lprl", namespace: str = "lprl-system", check: bool = True) -> subprocess.CompletedProcess[str]:
    """Render the chart."""
    return run("helm", "template", release, str(CHART), "--namespace", namespace, "--kube-version", KUBE_VERSION, *flags, check=check)


def rendered(*flags: str) -> list[dict[str, Any]]:
    """Render the chart; its objects."""
    return [d for d in yaml.safe_load_all(template(*flags).stdout) if d]


def one(documents: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    """The one object of a kind (and name)."""
    found = [d for d in documents if d["kind"] == kind and name in (None, d["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} x {kind} {name or ''}"
    return found[0]
