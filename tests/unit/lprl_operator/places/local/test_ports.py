"""Ports are given out once, also before anyone listens there."""

import subprocess
import sys

import pytest

from lprl_operator.places.local import ports

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="claims are names of Linux's abstract namespace")
SPAN = 4


def test_a_port_is_not_given_out_again_before_its_user_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ports.free_port()
    monkeypatch.setattr(ports, "_FIRST", first)
    monkeypatch.setattr(ports, "_first_ephemeral", lambda: first + SPAN)
    found = [ports.free_port() for _ in range(2 * SPAN)]
    below = [port for port in found if port < first + SPAN]
    assert len(set(found)) == len(found) and first not in found
    assert len(below) < SPAN, "the others are the system's choice"


def test_nor_by_another_process() -> None:
    mine = ports.free_port()
    ask = f"from lprl_operator.places.local.ports import _claimed; print(_claimed({mine}))"
    assert subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout == "False\n"


def test_claims_are_bounded() -> None:
    for _ in range(ports._KEPT + 10):
        ports.free_port()
    assert len(ports._claims) == ports._KEPT
