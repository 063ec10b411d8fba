"""The operator as a process: started as its image starts it, killed and started again, its logs and metrics read."""

import json
import os
import re
import signal
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from tests.control_plane.harness.plane import CLUSTER_NAMESPACE, ControlPlane, Process

from lprl_operator.places.local.ports import free_port


class Operator:
    """One replica."""

    def __init__(
        self,
        plane: ControlPlane,
        name: str = "operator-0",
        namespace: str = CLUSTER_NAMESPACE,
        skew_s: float = 0.0,
        kubeconfig: Path | None = None,
        **settings: Any,
    ) -> None:
        self.plane, self.name, self.namespace = plane, name, namespace
        self._kubeconfig = kubeconfig or plane.kubeconfig
        # -P: this folder on the path would put this very file before the standard library's operator.
        skewed = ["-P", str(Path(__file__).with_name("skewed.py")), str(skew_s)]
        self._command = [sys.executable, *(skewed if skew_s else ("-m", "lprl_operator"))]
        self.health, self.metrics_port = free_port(), free_port()
        base = {"healthPort": self.health, "metrics": {"port": self.metrics_port, "authentication": False}}
        self._settings = plane.folder / f"{name}.yaml"
        self._settings.write_text(yaml.safe_dump({**base, **settings}))
        self.process: Process | None = None
        self._logged_before = self.log_file.stat().st_size if self.log_file.exists() else 0
        self.start(wait=False)

    @property
    def log_file(self) -> Path:
        return self.plane.folder / "log" / f"{self.name}.log"

    def start(self, wait: bool = True) -> None:
        """Start the process (again)."""
        environment = {"LPRL_OPERATOR_CONFIG": str(self._settings), "POD_NAME": self.name, "POD_NAMESPACE": self.namespace}
        environment["KUBECONFIG"] = str(self._kubeconfig)
        self.process = self.plane.start(self.name, self._command, **environment)
        if wait:
            self.wait_healthy()

    def wait_healthy(self, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not self.healthy():
            assert self.process is not None and self.process.alive, f"the operator ended:\n{self.log_file.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"not healthy after {seconds} s:\n{self.log_file.read_text()[-3000:]}"
            time.sleep(0.1)

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def leads(self) -> bool:
        """Whether this replica acts."""
        return self.metric("lprl_leader") == 1

    def metrics(self) -> dict[str, float]:
        """Every sample by its name with labels; empty when it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
        except OSError:
            return {}
        return {m[1]: float(m[2]) for m in re.finditer(r"^([^#\s]+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)}

    def metric(self, prefix: str) -> float:
        """Sum of the samples whose name with labels starts so."""
        return sum(v for k, v in self.metrics().items() if k.startswith(prefix))

    def records(self) -> list[dict[str, Any]]:
        """Log records; a line that is no JSON (a traceback outside logging) is kept as `raw`."""
        found = []
        for line in self.log_file.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                found.append({"raw": line})
        return found

    def check_log(self) -> None:
        """Nothing it did since it was made here was a bug: every error it can expect is handled without a traceback."""
        with self.log_file.open() as log:
            log.seek(self._logged_before)
            text = log.read()
        assert "raceback" not in text, text[text.index("raceback") - 2000 :][:6000]

    def kill(self) -> None:
        """kill -9: no lease released, nothing flushed."""
        assert self.process is not None
        self.process.kill()

    def restart(self) -> None:
        """kill -9, and a new process at once."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM, as a kubelet does."""
        if self.process is not None:
            self.process.stop()
