"""The operator as a process for tests that use whatever API server $KUBECONFIG names."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from lprl_operator.places.local.ports import free_port

ROOT = Path(__file__).parents[2]


def wait(check: Callable[[], Any], what: str, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> Any:
    """Return the first true answer; do something in between."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"after {seconds:g} s still not: {what}"
        meanwhile()
        time.sleep(0.1)


class Operator:
    """The operator as a process."""

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        self._folder, self.name = folder, name
        self._health, self._metrics = free_port(), free_port()
        base = {"healthPort": self._health, "metrics": {"port": self._metrics, "authentication": False}}
        self._settings = folder / f"{name}.yaml"
        self._settings.write_text(yaml.safe_dump({**base, **settings}))
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> "Operator":
        environment = {**os.environ, "LPRL_OPERATOR_CONFIG": str(self._settings), "POD_NAME": self.name, "POD_NAMESPACE": "default"}
        with (self._folder / f"{self.name}.log").open("a") as log:
            self._child = subprocess.Popen([sys.executable, "-m", "lprl_operator"], env=environment, stdout=log, stderr=log, cwd=ROOT)
        wait(lambda: self._get(self._health, "/healthz") is not None, f"{self.name} is healthy", 180)
        return self

    def is_leading(self) -> bool:
        return "\nlprl_leader 1.0" in (self._get(self._metrics, "/metrics") or "")

    def kill(self) -> None:
        assert self._child is not None
        self._child.kill()
        self._child.wait(10)

    def stop(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def log(self) -> str:
        return (self._folder / f"{self.name}.log").read_text()

    def _get(self, port: int, path: str) -> str | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return None
