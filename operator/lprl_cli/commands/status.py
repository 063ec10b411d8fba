"""`lprl status`: a local run, the way `kubectl get` shows one; `kubectl lprl status`: jobs in a cluster, once or while they run."""

import argparse
import json
from pathlib import Path
from typing import Any

from lprl_api.errors import UserError
from lprl_cli import exits
from lprl_cli.cluster import place
from lprl_cli.commands.control import owner
from lprl_cli.live import last_step, number, printable
from lprl_cli.runfolder import RunFolder, find


def epilog(name: str) -> str:
    """Examples for --help."""
    return (
        f"examples:\n  lprl {name}                    all runs below ./runs\n"
        f"  lprl {name} runs/NAME          one, with its conditions\n  lprl {name} NAME --output json\n"
        f"  kubectl lprl {name} -A         jobs in every namespace of the cluster (`lprl {name} -A` is the same)\n"
        f"  kubectl lprl {name} NAME -n NS --watch   a live table until the job ends\n\n"
        "exit code with --watch: 0 succeeded, 10 failed, 4 suspended; without a NAME it goes on until interrupted"
    )


def add_arguments(parser: argparse.ArgumentParser, _: str) -> None:
    """Add this command's arguments."""
    parser.add_argument("run_folder", nargs="?", metavar="RUN|NAME", help="local run, or job in the cluster; none: all of them")
    parser.add_argument("--output", "-o", choices=("table", "json", "yaml"), default="table", help="default table")
    place.add_arguments(parser, everywhere=True)
    parser.add_argument("--watch", "-w", action="store_true", help="go on showing a job in the cluster until it ends")


HEAD = ("NAME", "PHASE", "PRECISION", "NODES", "CONVERTED", "STEP", "REWARD", "EVAL", "MISMATCH", "ATTEMPT", "PROCESS")


def _row(found: RunFolder) -> tuple[str, ...]:
    if found.state is None:
        return _copied(found)
    status: dict[str, Any] = found.status()
    training = status.get("training") or {}
    values = (
        found.name,
        status.get("phase", "Pending"),
        status.get("precision"),
        (status.get("nodes") or {}).get("summary"),
        (status.get("conversion") or {}).get("progress"),
        training.get("summary"),
        training.get("reward"),
        training.get("evaluationReward"),
        training.get("mismatch"),
        status.get("attempt"),
        owner(found.state),
    )
    return tuple("-" if v in (None, "") else str(v) for v in values)


def _copied(found: RunFolder) -> tuple[str, ...]:
    """Return the row of a folder that holds metrics and nothing else: what its last step says."""
    last = found.last_row()
    known = {"NAME": found.name, "STEP": last.get("step", "-"), "REWARD": number(last.get("reward")), "MISMATCH": number(last.get("k3"), 5)}
    return tuple(str(known.get(column, "-")) for column in HEAD)


def run(args: argparse.Namespace) -> int:
    """Print the status."""
    if place.in_cluster(args):
        from lprl_cli.cluster import status

        return status.run(args)
    place.only_in_cluster(args, "--watch")
    return _local(args)


def _local(args: argparse.Namespace) -> int:
    if args.run_folder is None:
        found = [find(str(p.parent)) for p in sorted(Path("runs").glob("*/job.json"))]
        if not found:
            raise UserError("no runs below ./runs", "`lprl run FILE` makes one; jobs in a cluster: kubectl lprl status, or -n NAMESPACE")
    else:
        found = [place.local(args.run_folder)]
    if args.output != "table":
        documents = [f.job() or {"metadata": {"name": f.name}, "metrics": f.last_row()} for f in found]
        value = documents if args.run_folder is None else documents[0]
        if args.output == "json":
            print(json.dumps(value, indent=2))
        else:
            import yaml

            print(yaml.safe_dump(value, sort_keys=False), end="")
        return exits.OK
    rows = [HEAD, *(_row(f) for f in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    if args.run_folder is not None:
        _details(found[0].status())
    return exits.OK


def _details(status: dict[str, Any]) -> None:
    if status.get("message"):
        print(f"\n{printable(status['message'])}")
    if told := last_step(status.get("training") or {}):
        print(f"  {told}")
    for c in status.get("conditions", ()):
        print(f"  {c['type']:<16} {c['status']:<8} {c['reason']:<24} {printable(c.get('message'))}".rstrip())
