"""Nodes of a real local Ray on a machine that is too busy to start their agents soon."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.local.conftest import Ray

from lprl_workload.launch.ray_link import CONNECT_DEADLINE_S, wait_healthy

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
SLOW = """
import sys, time
if any("runtime_env/agent/main.py" in argument for argument in sys.orig_argv):
    time.sleep(20)  # Ray's own limit for an agent that chooses its port is 15
"""
ASK = """
import ray, sys, time
ray.init(address=sys.argv[1], log_to_driver=False)
while ray.cluster_resources().get("lprl_trainer") != 1:
    time.sleep(0.2)
"""


def commands() -> Iterator[bytes]:
    """Yield the command lines of this machine's processes."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            yield path.read_bytes()


def test_a_node_lives_whose_agents_start_slowly(ray_head: Ray, ray_nodes: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW)
    monkeypatch.setitem(ray_nodes.env, "PYTHONPATH", str(tmp_path))
    node = ray_nodes.worker(trainer=1)
    wait_healthy(ray_head.address, CONNECT_DEADLINE_S)
    subprocess.run([sys.executable, "-c", ASK, ray_head.address], env=ray_nodes.env, check=True, timeout=CONNECT_DEADLINE_S)
    assert node.poll() is None, ray_nodes.said()
    ours = [command for command in commands() if str(ray_head.temp).encode() in command]
    assert any(b"runtime_env/agent/main.py" in command for command in ours)
    assert not any(part in command for part in (b"dashboard/agent.py\0", b"dashboard/dashboard.py") for command in ours)
    assert not any(b"ray.util.client.server" in command and b":%d" % ray_head.port in command for command in commands())
