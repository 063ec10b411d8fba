"""`lprl report`: one page of a run, or a comparison of several."""

import argparse
from pathlib import Path

from lprl_api.errors import UserError
from lprl_cli import exits
from lprl_cli.runfolder import find


def epilog(_: str) -> str:
    """Examples for --help."""
    return (
        "examples:\n"
        "  lprl report runs/demo                             writes report.html and reward.svg/.png beside the metrics\n"
        "  lprl report runs/a runs/b --compare modes.html    curves and mismatch of several runs in one page\n\n"
        "A run is a state folder (runs/NAME) or any folder with metrics.jsonl, such as one copied from a cluster."
    )


def add_arguments(parser: argparse.ArgumentParser, _: str) -> None:
    """Add this command's arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="state folder, name below ./runs, or folder with metrics.jsonl")
    parser.add_argument("--compare", metavar="OUT.html", help="lay the runs over each other in one page")
    parser.add_argument("--title", default="Comparison", help="title of the comparison")
    parser.add_argument("--out", metavar="FILE.html", help="where the page of a single run goes; default beside its metrics")


def run(args: argparse.Namespace) -> int:
    """Write the page or pages."""
    from lprl_cli.report.page import label_of, render_comparison, reward_series, write_report
    from lprl_cli.report.picture import write_pictures

    if args.out and (args.compare or len(args.runs) > 1):
        raise UserError(f"--out {args.out}: for the page of a single run", "leave it out, or name one run; --compare has its own file")
    found = [find(text) for text in args.runs]
    if args.compare:
        out = Path(args.compare)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(render_comparison(found, args.title), encoding="utf-8")
        series = [reward_series(one, f"{label_of(one)} ")[0] for one in found]
        print(out, *write_pictures(args.title, series, out.parent, out.stem), sep="\n")
        return exits.OK
    for one in found:
        for label, path in write_report(one, Path(args.out) if args.out else None).items():
            print(f"{label:<13} {path}")
    return exits.OK
