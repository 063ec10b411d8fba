"""`lprl metrics`: the newest numbers of a local run, or of a job in a cluster and its driver."""

import argparse
import json

from lprl_api.errors import UserError
from lprl_cli import exits
from lprl_cli.cluster import place
from lprl_cli.live import number


def epilog(_: str) -> str:
    """Examples for --help."""
    return (
        "examples:\n  lprl metrics runs/NAME                       the last row of its metrics.jsonl\n"
        "  kubectl lprl metrics NAME -n NS              status and the driver's Prometheus endpoint (needs get on pods/proxy)\n"
        "  kubectl lprl metrics NAME --output json | jq .driver.reward"
    )


def add_arguments(parser: argparse.ArgumentParser, _: str) -> None:
    """Add this command's arguments."""
    parser.add_argument("run_folder", metavar="RUN|NAME", help="local run (state or checkpoint folder), or job in the cluster")
    parser.add_argument("--output", "-o", choices=("table", "json", "yaml"), default="table", help="default table")
    place.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the numbers."""
    if place.in_cluster(args):
        from lprl_cli.cluster import metrics

        return metrics.run(args)
    rows = place.local(args.run_folder).rows("metrics.jsonl")
    if not rows:
        raise UserError(f"{args.run_folder}: no step has finished yet", "`lprl status` says how far it is")
    if args.output == "json":
        print(json.dumps(rows[-1], indent=2))
    elif args.output == "yaml":
        import yaml

        print(yaml.safe_dump(rows[-1], sort_keys=False), end="")
    else:
        width = max(map(len, rows[-1]))
        for name, value in rows[-1].items():
            print(f"{name:<{width}}  {number(value, 5) if isinstance(value, int | float) else value}")
    return exits.OK
