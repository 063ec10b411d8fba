"""TCP ports of this machine."""

import random
import socket
import sys
from collections import deque
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST = 24_000
"""Above what Ray keeps for its workers (10002 to 19999), which it refuses for anything else."""
_TRIES = 200
_CHANCE = random.SystemRandom()
_KEPT = 256
_claims: deque[socket.socket] = deque(maxlen=_KEPT)
"""Names in Linux's abstract namespace: each says that a port was given out here, until this process ends or gave out many others."""


def free_port() -> int:
    """Return a TCP port nothing listens on, and that no other call of this user's processes returned lately.

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
        if _claimed(port):
            return port
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _claimed(port: int) -> bool:
    """Claim a port before its user listens: a process that starts slowly opens it many seconds from now. Linux only, else True."""
    if sys.platform != "linux":
        return True
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0lprl-port-{port}")
    except OSError:
        claim.close()
        return False
    if len(_claims) == _KEPT:
        _claims.popleft().close()
    _claims.append(claim)
    return True


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
