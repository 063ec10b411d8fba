"""`python -m lprl_operator.places.local.ray_node start ...`: Ray's own command, on a machine of which nobody knows how busy it is.

A raylet kills its node when the agents beside it have not said which ports they opened within 15 seconds each, whatever ports they
were given (ray-project/ray#65983), and `ray start` prints nothing of it. Agents are Python programs of one to two seconds of processor
time: beside a dozen others on two cores they need longer. So every port is given, and said for them as soon as there is a session.

In use as `line(...)`; standard library only, Ray is run as a module in this very process.
"""

import os
import runpy
import secrets
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from lprl_operator.places.local.ports import free_port

FLAGS = {
    "dashboard-agent-listen-port": "dashboard_agent_listen_port",
    "dashboard-agent-grpc-port": "metrics_agent_port",
    "runtime-env-agent-port": "runtime_env_agent_port",
    "metrics-export-port": "metrics_export_port",
}
"""Flag of `ray start` -> name of the file, in the session's folder, that says this port to the raylet."""
ENV_NODE = "RAY_OVERRIDE_NODE_ID_FOR_TESTING"
"""Ray's: the id of the node; the files' names end with it."""
NODE_BYTES = 28
POLL_S = 0.02


def line(*arguments: str) -> list[str]:
    """Return the command of a node: `ray start` with these arguments, --temp-dir= (which must be this node's alone) among them."""
    return [sys.executable, "-m", __name__, "start", *arguments, *(f"--{flag}={free_port()}" for flag in FLAGS)]


def said(arguments: Sequence[str]) -> tuple[Path, dict[str, str]]:
    """Return the folder and, by file name, the ports of a command made by `line`."""
    given = dict(word[2:].split("=", 1) for word in arguments if word.startswith("--") and "=" in word)
    return Path(given["temp-dir"]), {FLAGS[flag]: given[flag] for flag in FLAGS}


def tell(temp: Path, ports: Mapping[str, str], node: str) -> None:
    """Write the ports where the raylet looks for them, once there is a session."""
    while not (sessions := list(temp.glob("session_2*"))):
        time.sleep(POLL_S)
    for name, port in ports.items():
        aside = sessions[0] / f"{name}_{node}.lprl"
        aside.write_text(port)
        aside.rename(aside.with_suffix(""))


def main() -> None:
    """Run `ray` with the arguments of this process."""
    node = secrets.token_hex(NODE_BYTES)
    os.environ[ENV_NODE] = node
    threading.Thread(target=tell, args=(*said(sys.argv), node), daemon=True).start()
    runpy.run_module("ray.scripts.scripts", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
