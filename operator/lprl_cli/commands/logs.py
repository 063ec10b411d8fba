"""`lprl logs`: what the processes of a local run, or the containers of a job in a cluster, wrote."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import BinaryIO

from lprl_api.errors import UserError
from lprl_cli import exits
from lprl_cli.arguments import at_least
from lprl_cli.cluster import place

POLL_SECONDS = 0.3
TAIL = "1000"
ROLES = ("inspect", "convert", "finalise", "head", "driver", "worker")


def epilog(_: str) -> str:
    """Examples for --help."""
    return (
        "examples:\n  lprl logs runs/NAME                    the newest driver, or the newest pod when none ran yet\n"
        "  lprl logs runs/NAME --list             every log there is\n"
        "  lprl logs runs/NAME convert --follow   pods whose POD/CONTAINER has this text\n"
        "  kubectl lprl logs NAME -f              a job in the cluster: its driver, or the pod of the phase it is in\n"
        "  kubectl lprl logs NAME --role worker --attempt 2\n"
        "  kubectl lprl logs NAME --list          every container there is"
    )


def add_arguments(parser: argparse.ArgumentParser, _: str) -> None:
    """Add this command's arguments."""
    parser.add_argument("run_folder", metavar="RUN|NAME", help="local run (state folder, or name below ./runs), or job in the cluster")
    parser.add_argument("match", nargs="?", help="text in POD/CONTAINER; the newest that has it")
    parser.add_argument("--list", action="store_true", help="list the logs")
    parser.add_argument("--follow", "-f", action="store_true", help="go on printing")
    place.add_arguments(parser)
    cluster = parser.add_argument_group("choosing a log in the cluster")
    cluster.add_argument("--role", choices=ROLES, help="default: the driver of the newest attempt, or the phase's pod")
    cluster.add_argument("--attempt", type=at_least(1), metavar="N", help="default: the newest whose pods are there")
    cluster.add_argument("--previous", "-p", action="store_true", help="the container's run before its last restart")
    cluster.add_argument("--tail", type=_lines, default=TAIL, metavar="N", help=f"last lines to begin with, or `all`; default {TAIL}")


def _lines(text: str) -> str:
    """Return a number of lines, or `all`."""
    if text == "all" or (text.isdigit() and len(text) < 10):
        return text
    raise argparse.ArgumentTypeError(f"got {text!r}; a number of lines, or all")


def run(args: argparse.Namespace) -> int:
    """Print a log."""
    if place.in_cluster(args):
        from lprl_cli.cluster import logs

        return logs.run(args)
    place.only_in_cluster(args, "--role", "--attempt", "--previous")
    return _local(args)


def _local(args: argparse.Namespace) -> int:
    state = place.local(args.run_folder).state
    if state is None:
        raise UserError(f"{args.run_folder}: no state folder of `lprl run`", "give runs/NAME")
    logs = {str(p.parent.relative_to(state / "pods")): p for p in state.glob("pods/*/*/log")}
    logs |= {str(p.relative_to(state)): p for p in state.glob("ray-logs/*/*") if p.is_file()}
    for pod in state.glob("pods/*/pod.json"):
        temp = json.loads(pod.read_text()).get("temp")
        if temp is not None:  # actors of a cluster that runs now
            logs |= {f"{pod.parent.name}/{p.name}": p for p in Path(temp).glob("session_2*/logs/worker-*") if p.stat().st_size}
    by_age = sorted(logs, key=lambda name: logs[name].stat().st_mtime)
    if args.list:
        for name in by_age:
            print(f"{logs[name].stat().st_size:>10}  {name}")
        return exits.OK
    found = [name for name in by_age if (args.match or "driver") in name]
    if args.match is None and not found:
        found = by_age
    if not found:
        raise UserError(f"{state}: no log matches {args.match or 'driver'!r}", "--list shows what there is")
    print(f"==> {found[-1]} <==", file=sys.stderr)
    _print(logs[found[-1]], args.follow)
    return exits.OK


def _print(path: Path, follow: bool) -> None:
    with path.open("rb") as file:
        _drain(file)
        while follow and not (path.parent / "exit.json").exists():
            time.sleep(POLL_SECONDS)
            _drain(file)
        _drain(file)


def _drain(file: BinaryIO) -> None:
    for block in iter(lambda: file.read(1 << 16), b""):
        sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()
