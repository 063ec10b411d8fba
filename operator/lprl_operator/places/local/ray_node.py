"""`python -m lprl_operator.places.local.ray_node start ...`: Ray's own command, on a machine of which nobody knows how busy it is.

A raylet kills its node when the agents beside it have not said which ports they opened within 15 seconds each, whatever ports they
were given (ray-project/ray#65983), and `ray start` prints nothing of it. Agents are Python programs of one to two seconds of processor
time: beside a dozen others on two cores they need longer. So every port is given, and said for them as soon as there is a session.

Two Python programs that nobody asked for are left out. The agent of the dashboard (metrics, jobs, logs over HTTP; 100 MB and a second
or two a node) is one that a raylet insists on: a shell that waits for the raylet's end stands in for it, and its ports are said as an
installation without dashboard says them. Nor does `ray start` wait for a dashboard: with --include-dashboard=false it starts that
process as well, for reports of usage, which are off (three seconds of processor time, 130 MB). Where its port is taken, Ray goes on
without. And wherever grpc can be imported it starts a server for ray:// clients, on a port that is the same for every head: not so in
this very process.

In use as `line(...)`; standard library only, Ray is run as a module in this very process.
"""

import importlib
import logging
import os
import runpy
import secrets
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lprl_operator.places.local.ports import free_port

FLAGS = {"runtime-env-agent-port": "runtime_env_agent_port"}
"""Flag of `ray start` -> name of the file, in the session's folder, that says this port to the raylet."""
UNUSED = ("dashboard_agent_listen_port", "metrics_agent_port", "metrics_export_port")
"""Names of such files for ports that nobody opens; Ray itself writes -1 where it has no dashboard."""
DASHBOARD_AGENT = "--dashboard_agent_command="
STAND_IN = "/bin/sh -c 'while kill -0 $PPID && kill -0 {node}; do sleep 5; done 2>/dev/null'"
"""A command that ends soon after its parent, and after this process (a raylet may be gone before the shell asks who its parent is); a
raylet refuses to start without an agent, and ends when it ends."""
ENV_NODE = "RAY_OVERRIDE_NODE_ID_FOR_TESTING"
"""Ray's: the id of the node; the files' names end with it."""
NODE_BYTES = 28
DASHBOARD = "127.0.0.1", "dashboard-port"
"""Where a head would open its dashboard, and the flag of the port."""
POLL_S = 0.02


def line(*arguments: str) -> list[str]:
    """Return the command of a node: `ray start` with these arguments, --temp-dir= (which must be this node's alone) among them."""
    head = [f"--{DASHBOARD[1]}={free_port()}", "--include-dashboard=false"] if "--head" in arguments else []
    return [sys.executable, "-m", __name__, "start", *arguments, *head, *(f"--{flag}={free_port()}" for flag in FLAGS)]


def without_dashboard(port: int) -> socket.socket:
    """Take a head's dashboard port, for as long as the socket lives, and have Ray not complain of it."""
    taken = socket.create_server((DASHBOARD[0], port))
    logging.getLogger("ray._private.services").addFilter(lambda record: "already occupied" not in record.getMessage())
    return taken


def given(arguments: Sequence[str]) -> dict[str, str]:
    """Return the flags of a command that have values."""
    return dict(word[2:].split("=", 1) for word in arguments if word.startswith("--") and "=" in word)


def said(arguments: Sequence[str]) -> tuple[Path, dict[str, str]]:
    """Return the folder and, by file name, the ports of a command made by `line`."""
    flags = given(arguments)
    return Path(flags["temp-dir"]), {FLAGS[flag]: flags[flag] for flag in FLAGS} | dict.fromkeys(UNUSED, "-1")


def tell(temp: Path, ports: Mapping[str, str], node: str) -> None:
    """Write the ports where the raylet looks for them, once there is a session."""
    while not (sessions := list(temp.glob("session_2*"))):
        time.sleep(POLL_S)
    for name, port in ports.items():
        aside = sessions[0] / f"{name}_{node}.lprl"
        aside.write_text(port)
        aside.rename(aside.with_suffix(""))


def without_agent(command: Sequence[str]) -> list[str]:
    """Return the command of one of Ray's processes; a raylet's gets the stand-in for the dashboard's agent."""
    stand_in = STAND_IN.format(node=os.getpid())
    return [f"{DASHBOARD_AGENT}{stand_in}" if word.startswith(DASHBOARD_AGENT) else word for word in command]


def main() -> None:
    """Run `ray` with the arguments of this process."""
    node = secrets.token_hex(NODE_BYTES)
    os.environ[ENV_NODE] = node
    threading.Thread(target=tell, args=(*said(sys.argv), node), daemon=True).start()
    sys.modules["grpc"] = None  # type: ignore[assignment]
    # By name: nothing of the command line imports Ray, and this process is Ray's.
    services: Any = importlib.import_module("ray._private.services")

    taken = [without_dashboard(int(port))] if (port := given(sys.argv).get(DASHBOARD[1])) else []
    started = services.start_ray_process
    services.start_ray_process = lambda command, *more, **options: started(without_agent(command), *more, **options)
    runpy.run_module("ray.scripts.scripts", run_name="__main__", alter_sys=True)
    del taken


if __name__ == "__main__":
    main()
