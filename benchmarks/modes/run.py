"""`make modes`: train every example precision pair on a dense and a MoE model, draw and tabulate them in docs/precision/.

Two processes at a time, one thread each. Finished runs in bench-out/modes/ are kept, so that a second call only does what is missing;
what is published names the runs that are missing, if any.
Exit code 1 when a run fails or a bar is missed: held-out reward above 0.8 for every pair, and K3 of int4-qat/int4, averaged over
the steps of three seeds, below that of bf16/int4.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import guides
from benchmarks.modes import tables
from benchmarks.modes.charts import draw
from benchmarks.modes.runs import Case
from benchmarks.training import Result, is_done, result_of, run_all, say

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ("1?-qwen3-*.yaml", "2?-qwen3-moe-*.yaml")
MORE_SEEDS = (tables.QAT, tables.PLAIN_INT4)
"""Pairs that are compared over seeds 0, 1 and 2; the others run with seed 0."""
AT_A_TIME = 2


def cases(steps: int | None, seeds: Sequence[int]) -> list[Case]:
    """Return all runs, the ones with seed 0 first."""
    examples = [path for pattern in EXAMPLES for path in sorted((ROOT / "examples").glob(pattern))]
    found = [Case(path, seed, steps, rounded) for seed in seeds for path in examples for rounded in _activations(path)]
    return [case for case in found if case.seed == seeds[0] or case.mode in MORE_SEEDS]


def _activations(example: Path) -> tuple[bool, ...]:
    """Return whether to run an example as it is, and with rounded activations: fp8-qat serves both."""
    return (False, True) if Case(example, 0, None).mode == tables.WEIGHT_ONLY else (False,)


def publish(results: Sequence[Result], missing: Sequence[str], folder: Path, target: Path) -> None:
    """Write tables and pictures aside, then move them to where the docs show them."""
    aside = folder / "publish"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    draw(results, aside)
    tables.write(results, missing, aside)
    target.mkdir(parents=True, exist_ok=True)
    for path in aside.iterdir():
        path.replace(target / path.name)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="6 steps, seed 0, no bars; writes to bench-out/modes-quick/precision")
    parser.add_argument("--draw", action="store_true", help="train nothing: publish and judge what is finished")
    parser.add_argument("--again", action="store_true", help="forget finished runs")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    folder = ROOT / "bench-out" / ("modes-quick" if args.quick else "modes")
    target = folder / "precision" if args.quick else ROOT / "docs" / "precision"
    if args.again:
        shutil.rmtree(folder, ignore_errors=True)
    every = cases(6, (0,)) if args.quick else cases(None, (0, 1, 2))
    todo = [case for case in every if not is_done(case, folder / case.name)]
    say(f"{len(every)} runs, {len(every) - len(todo)} finished before, {AT_A_TIME} at a time in {folder}")
    failures = [] if args.draw else run_all(todo, folder, AT_A_TIME)
    finished = [case for case in every if is_done(case, folder / case.name)]
    missing = [case.name for case in every if case not in finished]
    if not finished:
        sys.stderr.write("\n\n".join([*failures, "no run is finished"]) + "\n")
        return 1
    results = [result_of(case, folder / case.name) for case in finished]
    publish(results, missing, folder, target)
    pages = [] if args.quick else guides.refresh()
    say(f"wrote curves.svg, mismatch.svg, results.json, results.md in {target}{''.join(f', tables of {p}' for p in pages)}")
    sys.stderr.write("".join(f"{text}\n\n" for text in failures))
    judged = [*tables.bars(results), *((False, f"{name}: no result") for name in missing)]
    if args.quick:
        return 1 if missing else 0
    for passed, text in judged:
        say(f"{'ok  ' if passed else 'MISS'} {text}")
    return 0 if all(passed for passed, _ in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
