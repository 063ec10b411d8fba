"""What a node's raylet is told of its agents' ports before they have opened them."""

import socket
import threading
from pathlib import Path

import pytest

from lprl_operator.places.local.ray_node import DASHBOARD, FLAGS, given, line, said, tell, without_dashboard


def test_every_port_is_given_once_and_said_in_the_session_of_the_nodes_own_folder(tmp_path: Path) -> None:
    words = line("--block", f"--temp-dir={tmp_path}", "--num-cpus=1")
    temp, ports = said(words)
    assert temp == tmp_path and sorted(ports) == sorted(FLAGS.values()) and len(set(ports.values())) == len(FLAGS)
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
