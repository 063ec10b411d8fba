"""What all tests share: skips that CI refuses, and the API server of the control-plane tests."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

ENV_CI = "LPRL_CI"
"""Set by CI: a test that could not run is a failure there."""
ENV_DEVCLUSTER = "LPRL_DEVCLUSTER"
"""Folder with up.sh and down.sh of a single-machine control plane; default: shared/devcluster beside the checkout."""
ROOT = Path(__file__).parents[1]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn skips into failures where nothing may be missing."""
    report = yield
    if report.skipped and os.environ.get(ENV_CI) and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which {ENV_CI} forbids: {report.longrepr}"
    return report


class ControlPlane:
    """A control plane of our own on loopback, its state in a folder."""

    def __init__(self, folder: Path) -> None:
        self._kit = Path(os.environ.get(ENV_DEVCLUSTER) or ROOT.parent / "shared" / "devcluster")
        if not (self._kit / "up.sh").exists():
            pytest.skip(f"no API server: set KUBECONFIG (and have kubectl), or {ENV_DEVCLUSTER} to a folder with up.sh")
        self._state = {"LPRL_CLUSTER_DIR": str(folder)}

    def up(self, *flags: str) -> dict[str, str]:
        """Start what is not running yet; returns the environment to use it with."""
        for _ in range(3):  # on a busy machine it gives up on KubeRay's kinds before they are served; run again it goes on from there
            done = self._run("up.sh", "--control-plane-only", *flags)
            if done.returncode == 0:
                exported = dict(word.split("=", 1) for word in shlex.split(done.stdout) if "=" in word)
                return {name: os.path.expandvars(value) for name, value in exported.items()}
        raise AssertionError(done.stderr)

    def down(self) -> None:
        """End and remove it."""
        self._run("down.sh", "--wipe")

    def _run(self, script: str, *flags: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self._state}
        return subprocess.run([str(self._kit / script), *flags], env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A kube-apiserver with KubeRay: the user's ($KUBECONFIG), else a control plane of our own for the session."""
    if os.environ.get("KUBECONFIG") and shutil.which("kubectl"):
        yield
        return
    plane = ControlPlane(tmp_path_factory.mktemp("cluster"))
    before = dict(os.environ)
    try:
        os.environ.update(plane.up("--kuberay"))
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        plane.down()
