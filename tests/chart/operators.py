"""The operator as a process outside the cluster, with the rights and the settings of the chart's ServiceAccount and nothing else."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.chart import tools

from lprl_operator.kube.api import KubeApi
from lprl_operator.places.local.ports import free_port


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)


@cache
def _connected(kubeconfig: str) -> KubeApi:
    return KubeApi.connect()


def god() -> KubeApi:
    """The API as an administrator: what is polled goes this way, since a kubectl costs half a second of a busy core."""
    return _connected(os.environ["KUBECONFIG"])


def token(account: str, namespace: str) -> str:
    return tools.run("kubectl", "create", "token", account, "-n", namespace).stdout.strip()


def kubeconfig(folder: Path, account: str, namespace: str) -> Path:
    """Write a kubeconfig of a ServiceAccount."""
    found = json.loads(tools.run("kubectl", "config", "view", "--raw", "--minify", "--flatten", "-o", "json").stdout)
    found["users"] = [{"name": account, "user": {"token": token(account, namespace)}}]
    found["contexts"][0]["context"]["user"] = account
    path = folder / f"{account}.kubeconfig"
    path.write_text(json.dumps(found))
    path.chmod(0o600)
    return path


def until(done: Callable[[], Any], what: str, seconds: float = 180.0, pause: float = 0.2) -> Any:
    """Wait until `done` returns something true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(pause)
    return found


def status_of(url: str, bearer: str | None = None) -> int:
    """HTTP status of a GET; 0 where nobody answers."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {bearer}"} if bearer else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@contextmanager
def running(folder: Path, namespace: str, health_port: int, name: str = "lprl-0") -> Iterator[Path]:
    """Run the operator with the configuration of the release as it is now; yields its log."""
    settings, log = folder / "operator.yaml", folder / "operator.log"
    settings.write_text(tools.read("configmap", "lprl", "-n", namespace)["data"]["operator.yaml"])
    environment = {
        **os.environ,
        "KUBECONFIG": str(kubeconfig(folder, "lprl", namespace)),
        "LPRL_OPERATOR_CONFIG": str(settings),
        "POD_NAME": name,
        "POD_NAMESPACE": namespace,
    }
    with log.open("w") as out:
        child = subprocess.Popen([sys.executable, "-m", "lprl_operator"], env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        until(lambda: child.poll() is not None or status_of(f"http://127.0.0.1:{health_port}/healthz") == 200, "the operator's /healthz")
        assert child.poll() is None, log.read_text()[-3000:]
        yield log
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(10)
