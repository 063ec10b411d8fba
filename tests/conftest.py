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


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A kube-apiserver with KubeRay: the user's ($KUBECONFIG), else a control plane of our own on loopback for the session."""
    if os.environ.get("KUBECONFIG") and shutil.which("kubectl"):
        yield
        return
    kit = Path(os.environ.get(ENV_DEVCLUSTER) or ROOT.parent / "shared" / "devcluster")
    if not (kit / "up.sh").exists():
        pytest.skip(f"no API server: set KUBECONFIG (and have kubectl), or {ENV_DEVCLUSTER} to a folder with up.sh")
    state = {"LPRL_CLUSTER_DIR": str(tmp_path_factory.mktemp("cluster"))}
    for _ in range(3):  # on a busy machine it gives up on KubeRay's kinds before they are served; run again it goes on from there
        started = subprocess.run(
            [str(kit / "up.sh"), "--control-plane-only", "--kuberay"],
            env={**os.environ, **state},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if started.returncode == 0:
            break
    else:
        subprocess.run([str(kit / "down.sh"), "--wipe"], env={**os.environ, **state}, capture_output=True, timeout=120, check=False)
        raise AssertionError(started.stderr)
    exported = dict(word.split("=", 1) for word in shlex.split(started.stdout) if "=" in word)
    before = dict(os.environ)
    os.environ.update({name: os.path.expandvars(value) for name, value in exported.items()})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        subprocess.run([str(kit / "down.sh"), "--wipe"], env={**os.environ, **state}, capture_output=True, timeout=120, check=False)
