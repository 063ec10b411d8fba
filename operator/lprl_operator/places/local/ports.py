"""TCP ports of this machine."""

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST = 24_000
"""Above what Ray keeps for its workers (10002 to 19999), which it refuses for anything else."""
_TRIES = 200
_CHANCE = random.SystemRandom()


def free_port() -> int:
    """Return a TCP port nothing listens on.

    It lies below those the system hands to outgoing connections: one of them may be taken again between this look and its use.
    """
    below = _first_ephemeral()
    for _ in range(_TRIES if below > _FIRST else 0):
        port = _CHANCE.randrange(_FIRST, below)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def listens(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((host, port)) == 0


def _first_ephemeral() -> int:
    try:
        return int(_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0
