"""CPU time of the operator's looks, this checkout beside an earlier commit, in turns: the medians, and their ratio.

python benchmarks/looks/run.py [--against COMMIT] [--rounds N] [--looks N]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BEFORE = "6705c7d"
"""The last commit before the run at scale."""
Measured = dict[str, dict[str, float]]


def unpacked(commit: str, into: Path) -> Path:
    """Return a folder with the files of a commit."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit, "api", "operator", "tests"], capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(into)], input=archive.stdout, check=True)
    return into


def measured(tree: Path, looks: int) -> Measured:
    """Return what one process measures of a tree."""
    paths = os.pathsep.join(str(tree / name) for name in ("api", "operator"))
    command = [sys.executable, str(Path(__file__).with_name("one_tree.py")), str(tree), str(looks)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=True)
    found: Measured = json.loads(done.stdout.splitlines()[-1])
    return found


def table(before: list[Measured], now: list[Measured]) -> str:
    """Return the medians as Markdown."""
    lines = ["| phase | whole look before, ms | now, ms | ratio | without reading and writing: before, ms | now, ms | ratio |"]
    lines.append("|---|---|---|---|---|---|---|")
    for phase in now[0]:
        cells = []
        for part in ("whole", "pure"):
            old, new = (statistics.median(run[phase][part] for run in runs) / 1000 for runs in (before, now))
            cells += [f"{old:.2f}", f"{new:.2f}", f"{new / old:.2f}"]
        lines.append(f"| {phase} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure in turns and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--against", default=BEFORE, metavar="COMMIT")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--looks", type=int, default=1000)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="lprl-looks-") as folder:
        old = unpacked(chosen.against, Path(folder))
        before, now = list[Measured](), list[Measured]()
        for _ in range(chosen.rounds):
            before.append(measured(old, chosen.looks))
            now.append(measured(ROOT, chosen.looks))
    print(table(before, now))


if __name__ == "__main__":
    main()
