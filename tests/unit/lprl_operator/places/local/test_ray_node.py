"""What a node's raylet is told of its agents' ports before they have opened them."""

import shlex
import socket
import subprocess
import sys
import threading
import time
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


def test_what_stands_in_for_the_dashboards_agent_lives_as_long_as_its_raylet() -> None:
    command = without_agent(["raylet", "--dashboard_agent_command=python agent.py --head", "--runtime_env_agent_command=python main.py"])
    assert command == ["raylet", f"--dashboard_agent_command={STAND_IN}", "--runtime_env_agent_command=python main.py"]
    parent = [sys.executable, "-c", PARENT, *shlex.split(STAND_IN)]
    with subprocess.Popen(parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as raylet:
        assert raylet.stdout is not None
        agent = int(raylet.stdout.readline())
        deadline = time.monotonic() + 180
        # Once it sleeps it has looked for its parent: before, it may not even have asked who that is.
        while not Path(f"/proc/{agent}/task/{agent}/children").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        raylet.kill()
    deadline = time.monotonic() + 180
    while Path(f"/proc/{agent}/cmdline").exists() and Path(f"/proc/{agent}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.2)
