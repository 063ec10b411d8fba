"""`lprl suspend` and `resume` of a local run or of a job in a cluster, `stop` of a local run."""

import argparse
import fcntl
import json
import os
import signal
import time
from pathlib import Path

from lprl_api.errors import UserError
from lprl_cli import exits
from lprl_cli.cluster import place

STOP_SECONDS = 60.0


def epilog(name: str) -> str:
    """Examples for --help."""
    cluster = f"\n  kubectl lprl {name} NAME -n NS   a job in the cluster" if name != "stop" else ""
    return f"examples:\n  lprl {name} runs/NAME{cluster}\n\nsuspend checkpoints first; stop loses the steps since the last checkpoint."


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Add this command's arguments."""
    meant = "RUN" if name == "stop" else "RUN|NAME"
    parser.add_argument("run_folder", metavar=meant, help="state folder of a local run, its name below ./runs, or a job in the cluster")
    if name != "stop":
        place.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Do what the command's name says."""
    if place.called_as_kubectl() or (args.command != "stop" and place.in_cluster(args)):
        from lprl_cli.cluster import control

        return control.run(args)
    state = place.local(args.run_folder).state
    if state is None:
        raise UserError(f"{args.run_folder}: no state folder of `lprl run`", "give runs/NAME")
    if args.command == "stop":
        return _stop(state)
    (state / "requests.json").write_text(json.dumps({"suspend": args.command == "suspend"}))
    if args.command == "suspend":
        print(f"{state}: asked to checkpoint and stop" if owner(state) else f"{state}: not running")
    else:
        print(f"{state}: no longer suspended; `lprl run FILE` goes on")
    return exits.OK


def owner(state: Path) -> int | None:
    """Return the process that holds the state folder, None when nobody does."""
    path = state / "lock"
    if not path.exists():
        return None
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            return int(file.read() or 0) or None
        return None


def _stop(state: Path) -> int:
    pid = owner(state)
    if pid is None:
        print(f"{state}: not running")
        return exits.OK
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while owner(state) == pid:
        if time.monotonic() > deadline:
            raise UserError(
                f"process {pid} still runs after {STOP_SECONDS:.0f} s", f"end it with kill -9 {pid}; nothing it published is lost"
            )
        time.sleep(0.1)
    print(f"{state}: stopped; `lprl run FILE` goes on from the last checkpoint")
    return exits.OK
