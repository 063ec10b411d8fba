"""kubectl as the tests use it: documents in, documents out, waits with a deadline that say what they waited for.

What is asked twice a second goes to the API server directly: a kubectl takes a third of a second of a processor to start.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from lprl_operator.kube.api import ApiError, KubeApi, Unavailable
from lprl_operator.kube.kubeconfig import access

Document = dict[str, Any]
POLL_S = 0.5
PATIENCE = float(os.environ.get("LPRL_E2E_PATIENCE", "1"))
"""Deadlines of waits are so many times what the tests say: for a busy machine or a slow registry."""
PATHS = {
    "lprl": "/apis/lprl.dev/v1alpha1/namespaces/{}/lowprecisionrljobs",
    "jobs": "/apis/batch/v1/namespaces/{}/jobs",
    "rayclusters": "/apis/ray.io/v1/namespaces/{}/rayclusters",
    "pods": "/api/v1/namespaces/{}/pods",
    "configmaps": "/api/v1/namespaces/{}/configmaps",
    "serviceaccounts": "/api/v1/namespaces/{}/serviceaccounts",
    "events": "/api/v1/namespaces/{}/events",
    "roles": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "rolebindings": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "networkpolicies": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "workloads": "/apis/kueue.x-k8s.io/v1beta2/namespaces/{}/workloads",
    "claims": "/apis/extensions.agents.x-k8s.io/v1beta1/namespaces/{}/sandboxclaims",
    "sandboxes": "/apis/agents.x-k8s.io/v1beta1/namespaces/{}/sandboxes",
    "warmpools": "/apis/extensions.agents.x-k8s.io/v1beta1/namespaces/{}/sandboxwarmpools",
}


@dataclass(frozen=True)
class Kube:
    """One cluster, seen through its kubeconfig."""

    kubeconfig: Path
    path: str
    """PATH with kubectl (and helm)."""
    audit: Path | None = field(default=None, compare=False)
    """The API server's audit log of writes, where it is a server of ours."""

    def run(self, *words: str, text: str | None = None, check: bool = True, timeout_s: float = 120, program: str = "kubectl") -> str:
        """Run kubectl (or helm) and return what it printed."""
        done = self._run([program, *words], text, timeout_s)
        assert not check or done.returncode == 0, f"{program} {' '.join(words)}: {done.stderr[-3000:]}"
        return done.stdout

    def refused(self, *words: str, text: str | None = None) -> str:
        """Run kubectl, which must fail, and return what it says then."""
        done = self._run(["kubectl", *words], text, 60)
        assert done.returncode != 0, f"kubectl {' '.join(words)} was taken: {done.stdout}"
        return done.stderr

    def paste(self, script: str, folder: Path, timeout_s: float) -> str:
        """Run a bash script in a folder as somebody with kubectl, helm and this checkout's `lprl` on the PATH; return what it printed."""
        done = self._run(["bash"], script, timeout_s * PATIENCE, folder)
        assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def apply(self, documents: Iterable[Document]) -> None:
        """Apply documents."""
        self.run("apply", "-f", "-", text=yaml.safe_dump_all(documents))

    def get(self, kind: str, name: str, namespace: str) -> Document | None:
        """Return an object, None where there is none; `kind` is a key of PATHS."""
        return self._ask(f"{PATHS[kind].format(namespace)}/{name}")

    def list(self, kind: str, namespace: str, labels: str = "", fields: str = "") -> list[Document]:
        """Return the objects of a kind (a key of PATHS) that the selectors choose."""
        chosen = {name: value for name, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}
        found = self._ask(PATHS[kind].format(namespace), **chosen) or {"kind": "List", "items": []}
        return [{"kind": found["kind"].removesuffix("List"), **item} for item in found["items"]]

    def every(self, path: str) -> Sequence[Document]:
        """Return the objects that a path of the API lists."""
        return tuple((self._ask(path) or {})["items"])

    def _ask(self, path: str, **query: str) -> Document | None:
        try:
            return dict(self._api.get(path, **query))
        except Unavailable:  # once more: a busy API server
            return dict(self._api.get(path, **query))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    @cached_property
    def _api(self) -> KubeApi:
        return KubeApi.connect_as_user(access(str(self.kubeconfig)).settings, 60.0, "lprl-tests")

    def _run(self, line: Sequence[str], text: str | None, timeout_s: float, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}:{self.path}:{os.environ['PATH']}"
        environment = {"KUBECONFIG": str(self.kubeconfig), "PATH": path, "HOME": str(self.kubeconfig.parent)}
        return subprocess.run(line, input=text, capture_output=True, text=True, timeout=timeout_s, env=environment, cwd=folder, check=False)


def wait(check: Callable[[], Any], what: str, seconds: float, told: Callable[[], str] = lambda: "") -> Any:
    """Return the first true answer; fails saying what it waited for and what `told` says by then."""
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"after {seconds:g} s still not: {what}\n{told()}"
        time.sleep(POLL_S)
    return found
