"""What a node's raylet is told of its agents' ports before they have opened them."""

import threading
from pathlib import Path

from lprl_operator.places.local.ray_node import FLAGS, line, said, tell


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
