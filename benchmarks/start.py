"""Processor time of commands that should be there at once, beside a Python that loads their libraries alone, in turns.

python benchmarks/start.py [--rounds N]

Bar, on a machine with nothing else to do: under 0.5 s each (docs/adr/0005). The ratio holds on a busy one too.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
JOB = str(ROOT / "examples" / "cluster" / "two-workers.yaml")
BAR_S = 0.5
COMMANDS: dict[str, list[str]] = {
    "python, pydantic and yaml": ["-c", "import pydantic, yaml"],
    "lprl --help": ["-m", "lprl_cli.main", "--help"],
    "lprl validate": ["-m", "lprl_cli.main", "validate", JOB],
}
BASE = next(iter(COMMANDS))


def used_s(arguments: list[str]) -> float:
    """Return the processor seconds of one process, user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=ROOT, env={**os.environ})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Print a row per command; returns 1 when one misses the bar."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=7)
    rounds = options.parse_args().rounds
    runs = {name: list[float]() for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            runs[name].append(used_s(arguments))
    base = statistics.median(runs[BASE])
    print("| command | processor seconds, median | least | to the libraries alone |")
    print("|---|---|---|---|")
    for name, taken in runs.items():
        print(f"| {name} | {statistics.median(taken):.3f} | {min(taken):.3f} | {statistics.median(taken) / base:.2f} |")
    worst = max(min(taken) for taken in runs.values())
    print(f"worst of the least {worst:.3f} s, bar {BAR_S} s")
    return int(worst > BAR_S)


if __name__ == "__main__":
    sys.exit(main())
