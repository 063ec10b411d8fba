"""What a node's raylet is told of its agents' ports before they have opened them."""

import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lprl_operator.places.local.ray_node import (
    DASHBOARD,
    FLAGS,
    STAND_IN,
    UNUSED,
    given,
    line,
    said,
    tell,
    without_agent,
    without_dashboard,
)


def test_every_port_is_given_once_and_said_in_the_session_of_the_nodes_own_folder(tmp_path: Path) -> None:
    words = line("--block", f"--temp-dir={tmp_path}", "--num-cpus=1")
    temp, ports = said(words)
    assert temp == tmp_path and sorted(ports) == sorted((*FLAGS.values(), *UNUSED))
    assert {name for name, port in ports.items() if port == "-1"} == set(UNUSED)
    teller = threading.Thread(target=tell, args=(temp, ports, "ab12"))
    teller.start()
    session = tmp_path / "session_2026-01-01_00-00-00_000001_1"
    session.mkdir()
    (tmp_path / "session_latest").symlink_to(session)
    teller.join(180)
    assert {path.name: path.read_text() for path in session.iterdir()} == {f"{name}_ab12": port for name, port in ports.items()}


def test_a_heads_dashboard_finds_its_port_taken_and_a_workers_has_none(tmp_path: Path) -> None:
    temp = f"--temp-dir={tmp_path}"
    host, flag = DASHBOARD
    assert flag not in given(line("--address=127.0.0.1:1", temp))
    port = int(given(line("--head", temp))[flag])
    with without_dashboard(port), socket.socket() as dashboard:
        dashboard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Ray asks
        with pytest.raises(OSError, match="in use"):
            dashboard.bind((host, port))


PARENT = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); sys.stdin.read()"


@pytest.mark.parametrize("ends", ["raylet", "node"])
def test_what_stands_in_for_the_dashboards_agent_lives_no_longer_than_its_raylet_and_its_node(ends: str) -> None:
    agents = ["--dashboard_agent_command=python agent.py --head", "--runtime_env_agent_command=python main.py"]
    assert without_agent(["raylet", *agents]) == ["raylet", f"--dashboard_agent_command={STAND_IN.format(node=os.getpid())}", agents[1]]
    with subprocess.Popen(["sleep", "600"]) as node:
        parent = [sys.executable, "-c", PARENT, *shlex.split(STAND_IN.format(node=node.pid))]
        with subprocess.Popen(parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as raylet:
            assert raylet.stdout is not None
            agent = int(raylet.stdout.readline())
            assert waited(lambda: children(agent))  # it sleeps: before, it may not even have asked who its parent is
            (raylet if ends == "raylet" else node).kill()
            if ends == "node":
                node.wait()  # else it is there, as a zombie
                assert waited(lambda: not is_there(agent)) and raylet.poll() is None
            raylet.kill()
        assert waited(lambda: not is_there(agent))
        node.kill()


def children(pid: int) -> str:
    """Pids of a process's children."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def is_there(pid: int) -> bool:
    """Whether a process runs; a zombie has no command line."""
    return Path(f"/proc/{pid}/cmdline").exists() and bool(Path(f"/proc/{pid}/cmdline").read_bytes())


def waited(check: Callable[[], object]) -> bool:
    """Wait until something is true, for minutes on a busy machine."""
    deadline = time.monotonic() + 180
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
