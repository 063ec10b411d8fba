"""kubectl as the tests use it: documents in, documents out, waits with a deadline that say what they waited for."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]
POLL_S = 0.5


@dataclass(frozen=True)
class Kube:
    """One cluster, seen through its kubeconfig."""

    kubeconfig: Path
    path: str
    """PATH with kubectl (and helm)."""
    audit: Path | None = None
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
        done = self._run(["bash"], script, timeout_s, folder)
        assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def _run(self, line: list[str], text: str | None, timeout_s: float, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}:{self.path}:{os.environ['PATH']}"
        environment = {"KUBECONFIG": str(self.kubeconfig), "PATH": path, "HOME": str(self.kubeconfig.parent)}
        return subprocess.run(line, input=text, capture_output=True, text=True, timeout=timeout_s, env=environment, cwd=folder, check=False)

    def apply(self, documents: Iterable[Document]) -> None:
        """Apply documents."""
        self.run("apply", "-f", "-", text=yaml.safe_dump_all(documents))

    def get(self, kind: str, name: str, namespace: str) -> Document | None:
        """Return an object, None where there is none."""
        text = self.run("-n", namespace, "get", kind, name, "-o", "json", "--ignore-not-found")
        return dict(json.loads(text)) if text.strip() else None

    def list(self, kind: str, namespace: str, labels: str = "") -> list[Document]:
        """Return the objects of a kind."""
        words = ("-l", labels) if labels else ()
        return list(json.loads(self.run("-n", namespace, "get", kind, *words, "-o", "json"))["items"])


def wait(check: Callable[[], Any], what: str, seconds: float, told: Callable[[], str] = lambda: "") -> Any:
    """Return the first true answer; fails saying what it waited for and what `told` says by then."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"after {seconds:g} s still not: {what}\n{told()}"
        time.sleep(POLL_S)
    return found
