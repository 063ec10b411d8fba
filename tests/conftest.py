"""What all tests share: skips that CI refuses, and the API server of the control-plane tests."""

import gc
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
# Lanes outnumber processors: threads of one process only wait for each other, and one that spins at a barrier takes another's time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Nor do control planes have time to collect garbage as often as Go likes to: a quarter less of an API server's time for twice its memory.
os.environ.setdefault("GOGC", "300")
# While libraries are imported there is no garbage to be found among a million objects (docs/log.md), later little.
gc.disable()
EVERY = 20_000, 20, 20
USERS_KUBECONFIG = os.environ.get("KUBECONFIG")
"""The cluster tests are to use, as the user said before any fixture set it to one of our own."""

# Lanes of `make test`: what shares an API server, or would only take processors from each other, runs one after the other in one
# process (side_by_side.py; `make test-faults`: pytest-xdist with --dist loadgroup). Most of a control-plane test is waiting; the lanes
# beside it use the time.
PLANES = {
    "test_away": 1, "test_refused": 1, "test_life": 1,
    "test_killed": 2, "test_presets": 2,
}  # fmt: skip
"""Control plane of a module of tests/control_plane; 3 for all others."""
RAYS = {
    "test_run_job": "ray-1", "test_train_ray": "ray-2", "test_train_lost": "ray-4",
    "test_convert_kill": "ray-5", "test_train_kill": "ray-5", "test_volume_full": "ray-5", "test_run_cli": "ray-5",
    "test_train_faults": "ray-2", "test_ahead_kill": "ray-1", "test_ahead_process": "ray-1",
}  # fmt: skip
"""Lane of a module of tests/local; ray-3 for all others."""
LANE_S = 1800
"""Longest test of a lane: each of its waits has a limit of its own, which a busy machine may come close to."""
API_SERVER = ("test_admission", "test_cluster_rules", "test_crash_points", "test_crd_server", "test_handover", "test_kubectl_lprl")
"""Modules of tests/contract that share one API server."""

LATE_CHART, LAST = ("test_upgrade",), "chart-2"
"""The longest of tests/chart, which share an API server, in a lane of its own; it begins when another has ended, for one more API
server at a time would take the memory that all have."""


def lane(path: Path) -> str | None:
    """Return the lane of a test file; None for tests that may run anywhere, any number at a time."""
    folder, module = path.relative_to(ROOT / "tests").parts[0], path.stem
    if folder == "control_plane":
        return f"plane-{PLANES.get(module, 3)}"
    if folder == "local":
        return RAYS.get(module, "ray-3")
    if folder == "chart" and module in LATE_CHART:
        return LAST
    if folder in ("chart", "cluster", "gpu", "queue", "sandbox"):
        return folder
    return "api-server" if folder == "contract" and module in API_SERVER else None


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put every test into its lane."""
    for item in items:
        found = lane(item.path)
        if found is not None:
            item.add_marker(pytest.mark.xdist_group(found))
        if found is not None and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LANE_S))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Look for garbage from now on; refuse to run lanes that are none: every process would start control planes and runs of its own."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(*EVERY)
    grouped = (i for i in session.items if i.get_closest_marker("xdist_group"))
    if getattr(session.config.option, "loadgroup", False) and not all("@" in i.nodeid for i in grouped):
        raise pytest.UsageError("pytest-xdist did not take the groups of the tests: which versions fit together is in pyproject.toml")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn skips into failures where nothing may be missing."""
    report = yield
    if report.skipped and os.environ.get(ENV_CI) and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which {ENV_CI} forbids: {report.longrepr}"
    return report


FIRST = ("nice", "-n", "-5") if os.geteuid() == 0 else ()
"""Everybody waits for an API server, and gives a request up after 30 s: on a busy machine it comes before what asks it."""


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
        self.down()
        raise AssertionError(done.stderr)

    def down(self) -> None:
        """End and remove it."""
        self._run("down.sh", "--wipe")

    def _run(self, script: str, *flags: str) -> subprocess.CompletedProcess[str]:
        line, environment = [*FIRST, str(self._kit / script), *flags], {**os.environ, **self._state}
        try:
            return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300, check=False)
        except subprocess.TimeoutExpired as error:
            return subprocess.CompletedProcess(line, 124, "", f"{script} did not end within {error.timeout:g} s")


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A kube-apiserver with KubeRay: the user's ($KUBECONFIG), else a control plane of our own for the session."""
    if USERS_KUBECONFIG and shutil.which("kubectl"):
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
