"""The chart's tools, and an API server that notes what the operator asks of it."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chart import tools
from tests.conftest import USERS_KUBECONFIG

ENV_DEVCLUSTER = "LPRL_DEVCLUSTER"
ENV_API_SERVER_ARGUMENTS = "LPRL_APISERVER_ARGS"
NAMESPACE = "lprl-chart"
AUDITED = f"system:serviceaccount:{NAMESPACE}:lprl"
POLICY = f"""\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {{level: Metadata, users: ["{AUDITED}"]}}
  - {{level: None}}
"""


def kit() -> Path | None:
    """Folder with up.sh and down.sh; None when there is none."""
    found = Path(os.environ.get(ENV_DEVCLUSTER) or tools.ROOT.parent / "shared" / "devcluster")
    return found if (found / "up.sh").exists() else None


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    """An API server and the tools: the user's ($KUBECONFIG), else a control plane of our own. Its audit log, where it is ours."""
    before = dict(os.environ)
    found = kit()
    helm_home = tmp_path_factory.mktemp("helm")
    mine = not (USERS_KUBECONFIG and shutil.which("kubectl"))
    if found is None and (mine or tools.missing()):
        pytest.skip(f"not on PATH: {tools.missing()}; set {ENV_DEVCLUSTER} to a folder with up.sh, or install them and set KUBECONFIG")
    state, log = tmp_path_factory.mktemp("cluster"), None
    try:
        if found is not None and (mine or tools.missing()):
            log = _up(found, state)
            if not mine and USERS_KUBECONFIG:  # only the tools were missing
                os.environ["KUBECONFIG"], log = USERS_KUBECONFIG, None
        os.environ |= {f"HELM_{part}_HOME": str(helm_home / part) for part in ("CACHE", "CONFIG", "DATA")}
        yield log
    finally:
        os.environ.clear()
        os.environ.update(before)
        if found is not None and (state / "env").exists():
            where = {**os.environ, "LPRL_CLUSTER_DIR": str(state)}
            subprocess.run([str(found / "down.sh"), "--wipe"], env=where, capture_output=True, timeout=120, check=False)


def _up(found: Path, state: Path) -> Path:
    """Start a control plane with KubeRay and an audit log, and put the tools on PATH."""
    policy, log = state / "audit-policy.yaml", state / "audit.log"
    policy.write_text(POLICY)
    arguments = f"--audit-policy-file={policy} --audit-log-path={log}"
    environment = {**os.environ, "LPRL_CLUSTER_DIR": str(state), ENV_API_SERVER_ARGUMENTS: arguments}
    command = [str(found / "up.sh"), "--control-plane-only", "--kuberay", "--tools"]
    for _ in range(3):  # on a busy machine it may give up before KubeRay's kinds are served; run again it goes on from there
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    exported = dict(word.split("=", 1) for word in shlex.split(done.stdout) if "=" in word)
    os.environ.update({name: os.path.expandvars(value) for name, value in exported.items()})
    assert not tools.missing(), f"up.sh --tools did not bring {tools.missing()}"
    return log


@pytest.fixture(scope="package")
def helm(request: pytest.FixtureRequest) -> None:
    """The tools alone; starts nothing where they are on PATH."""
    if tools.missing():
        request.getfixturevalue("server")
