"""`make real`: train a real language model, SmolLM2-135M-Instruct, in the precision pairs.

With a GPU: eight pairs, 100 steps each, three seeds for the pairs that differ, several at a time; writes docs/precision/real/.
Without: one matched and one unmatched pair, a few steps each (minutes on two cores); writes bench-out/real/. Finished runs are kept,
so that a second call only does what is missing. What is written to docs/ goes into the tables of the two guides, too (guides.py). The
figures against a real engine are made where SGLang is: `python -m benchmarks.real.served`, then `python -m benchmarks.guides`.
Exit code 1 when a run fails or a matched pair does not learn.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import guides
from benchmarks.real import tables
from benchmarks.real.cases import MATCHED, PAIRS, ROOT, SHORT, RealCase
from benchmarks.training import is_done, result_of, run_all, say

from lprl_api.errors import UserError
from lprl_fixtures.questions import KINDS
from lprl_fixtures.smollm2 import ask, write_smollm2

PUBLISHED = ROOT / "docs" / "precision" / "real"
SHORT_RUN = {"steps": 14}
"""Of a CPU: the full run's settings, of which the reward is known to rise beyond noise by then (steps.csv). Half the prompts with three
times the learning rate rose faster and lost its entropy by step 7."""
EDGE, PROMPTS = 3, 16
"""Steps at either end of a run that are compared, and prompts of a step (examples/real/smollm2.yaml)."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of the model; made from its package where it is not there")
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out" / "real", help="folder of the runs")
    parser.add_argument("--publish", type=Path, help="folder of tables and pictures; default docs/precision/real with a GPU, else OUT")
    parser.add_argument("--task", choices=sorted(KINDS), default="add1")
    parser.add_argument("--steps", type=int, help="steps of a run")
    parser.add_argument("--rate", type=float, help="learning rate")
    parser.add_argument("--pairs", nargs="+", choices=[pair.label for pair in PAIRS], help="only these")
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds of every pair; default 0, and 0 1 2 for pairs that differ")
    parser.add_argument("--at-a-time", type=int, help="runs side by side; default 6 with a GPU, else 1")
    return parser.parse_args()


def model_folder(asked: Path | None, out: Path) -> Path:
    """Return the model's folder, made and asked when it is not there."""
    folder = asked or out / "smollm2"
    if (folder / "config.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    say(f"{folder}: {write_smollm2(folder)} bytes of weights")
    for answer in ask(folder):
        say(f"{'ok  ' if answer.right else 'MISS'} {answer.question} -> {answer.said.strip()!r}")
    return folder


def cases(args: argparse.Namespace, model: Path, gpu: bool) -> list[RealCase]:
    chosen = [pair for pair in PAIRS if pair.label in (args.pairs or ([p.label for p in PAIRS] if gpu else SHORT))]
    changes = dict(SHORT_RUN) if not gpu else {}
    changes |= {"steps": args.steps} if args.steps else {}
    changes |= {"learningRate": args.rate} if args.rate else {}
    seeds = {pair.label: args.seeds or ((0, 1, 2) if gpu and pair.more_seeds else (0,)) for pair in chosen}
    found = [RealCase(pair, seed, model, gpu, args.task, changes) for pair in chosen for seed in seeds[pair.label]]
    return sorted(found, key=lambda case: case.seed)


def main() -> int:
    import torch

    args, gpu = arguments(), torch.cuda.is_available()
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        every = cases(args, model_folder(args.model, args.out), gpu)
    except UserError as error:
        sys.stderr.write(f"error: {error.message}\n  fix: {error.remedy}\n")
        return 3
    todo = [case for case in every if not is_done(case, args.out / case.name)]
    at_a_time = args.at_a_time or (6 if gpu else 1)
    say(f"{len(every)} runs on {tables.device()}, {len(every) - len(todo)} finished before, {at_a_time} at a time in {args.out}")
    failures = run_all(todo, args.out, at_a_time, 2)
    finished = [case for case in every if is_done(case, args.out / case.name)]
    target = args.publish or (PUBLISHED if gpu else args.out)
    target.mkdir(parents=True, exist_ok=True)
    sys.stderr.write("".join(f"{text}\n\n" for text in failures))
    if not finished:
        return 1
    results = [result_of(case, args.out / case.name) for case in finished]
    tables.write(results, [case.name for case in every if case not in finished], target, args.task)
    pages = guides.refresh() if target == PUBLISHED else []
    say(f"wrote results.md, results.json, steps.csv, curves.svg, mismatch.svg in {target}{''.join(f', tables of {p}' for p in pages)}")
    judged = tables.gains(results) if gpu else [rise(r.figures.mode, r.steps) for r in results if r.figures.mode in MATCHED]
    for passed, text in judged:
        say(f"{'ok  ' if passed else 'MISS'} {text}")
    return 0 if not failures and all(passed for passed, _ in judged) else 1


def rise(label: str, steps: Sequence[Mapping[str, Any]]) -> tuple[bool, str]:
    """Return whether the reward rose beyond noise: two standard errors of the difference between the first and the last `EDGE` steps.

    A prompt counts as one observation: its samples are too alike to be several.
    """
    first, last = (fmean(row["reward"] for row in part) for part in (steps[:EDGE], steps[-EDGE:]))
    noise = 2.0 * sqrt((first * (1.0 - first) + last * (1.0 - last)) / (EDGE * PROMPTS))
    return (
        last - first > noise,
        f"{label}: reward {first:.3f} in the first {EDGE} steps, {last:.3f} in the last, needs +{noise:.3f} to be no noise",
    )


if __name__ == "__main__":
    sys.exit(main())
