"""`make engines`: train four precision pairs with the torch engine and with a real SGLang on this machine's CPU, side by side.

The environment is that of `make setup-backends`. A dense and a MoE model learn to find a digit, at staleness 0 and 1; a dense one learns to
ask a tool. One run at a time; finished runs in bench-out/engines/ are kept, so that a second call only does what is missing, and what is
published in docs/precision/engines/ keeps the runs of earlier calls and names those that are missing, if any.
Exit code 1 when a run fails or a bar is missed: held-out reward above 0.8, and a mismatch as low as the torch engine's.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.backends import charts, tables
from benchmarks.backends.cases import ENGINES, PAIRS, ROOT, EngineCase, by_lprl_run, cases
from benchmarks.training import is_done, result_of, run_all, say

PUBLISHED = ROOT / "docs" / "precision" / "engines"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", choices=list(PAIRS), help="only these")
    parser.add_argument("--models", nargs="+", choices=list(tables.MODELS), help="only these")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, help="only these")
    parser.add_argument("--tasks", nargs="+", choices=list(tables.TASKS), help="only these")
    parser.add_argument("--staleness", nargs="+", type=int, choices=(0, 1), help="only these")
    parser.add_argument("--draw", action="store_true", help="train nothing: publish and judge what is finished")
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out" / "engines", help="folder of the runs")
    return parser.parse_args()


def chosen(every: Sequence[EngineCase], args: argparse.Namespace) -> list[EngineCase]:
    """Return the cases that are asked for."""

    def asked(case: EngineCase) -> bool:
        wanted = (args.pairs, args.models, args.engines, args.tasks, args.staleness)
        return all(not any_of or value in any_of for any_of, value in zip(wanted, case.parts, strict=True))

    return [case for case in every if asked(case)]


def publish(every: Sequence[EngineCase], out: Path, target: Path) -> list[tuple[bool, str]]:
    """Write tables and pictures of the finished runs aside, then move them to where the docs show them; returns the bars.

    Runs that are published already and not finished here stay.
    """
    here = {case.name: tables.shown(case, result_of(case, out / case.name)) for case in every if is_done(case, out / case.name)}
    by_name = {one.case.name: one for one in tables.published(every, target)} | here
    found = [by_name[case.name] for case in every if case.name in by_name]
    missing = [case.name for case in every if case.name not in by_name]
    aside = out / "publish"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    runs = tables.write(found, missing, aside)
    charts.draw(found, aside)
    target.mkdir(parents=True, exist_ok=True)
    for path in aside.iterdir():
        path.replace(target / path.name)
    say(f"wrote results.md, results.json, steps.csv, curves.svg, mismatch.svg in {target}")
    return [*tables.bars(runs), *((False, f"{name}: no result") for name in missing)]


def main() -> int:
    args, every = arguments(), cases()
    args.out.mkdir(parents=True, exist_ok=True)
    asked = [] if args.draw else chosen(every, args)
    todo = [case for case in asked if not is_done(case, args.out / case.name)]
    say(f"{len(every)} runs, {len(asked)} asked for, {len(asked) - len(todo)} of them finished before; one at a time in {args.out}")
    failures = run_all(todo, args.out, 1, command=by_lprl_run)
    sys.stderr.write("".join(f"{text}\n\n" for text in failures))
    judged = publish(every, args.out, PUBLISHED)
    for passed, text in judged:
        say(f"{'ok  ' if passed else 'MISS'} {text}")
    return 0 if all(passed for passed, _ in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
