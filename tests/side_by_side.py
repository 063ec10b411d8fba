"""`make test`: every lane of conftest.py is a pytest of its own, and so are three shares of the tests that may run anywhere.

Not one pytest-xdist: each of its processes imports and collects what any of them runs, and a lane needs a tenth of that.
Hangs and kills with limits of time come after it: `make test-faults`.

    python -m tests.side_by_side LANES
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import LAST, lane

ROOT = Path(__file__).parents[1]
FOLDERS = ("control_plane", "local", "chart", "contract", "unit", "golden", "repo")
SHARES = {"unit/lprl_workload": "workload", "contract": "contract"}
"""What runs the tests of a folder that are in no lane; `others` runs the rest."""
PYTEST = (sys.executable, "-m", "pytest", "-q", "-m", "not faults", "-p", "no:cacheprovider")


@dataclass(frozen=True)
class Ended:
    """A lane that ran."""

    name: str
    code: int
    said: str
    seconds: float


def shares(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Deal test files out, in the order in which pytest runs them: those of each lane, and those that are in none; LAST comes last."""
    found: dict[str, list[Path]] = {}
    for file in sorted(files):
        inside = file.relative_to(ROOT / "tests").as_posix()
        anywhere = next((name for folder, name in SHARES.items() if inside.startswith(f"{folder}/")), "others")
        found.setdefault(lane(file) or anywhere, []).append(file)
    return dict(sorted(found.items(), key=lambda item: item[0] == LAST))


def run(name: str, files: Iterable[Path], folder: Path, running: dict[str, "subprocess.Popen[bytes]"]) -> Ended:
    """Run a lane to its end; what its tests left behind stays where one failed."""
    began, told = time.monotonic(), folder / f"{name}.txt"
    line = [*PYTEST, f"--basetemp={folder / name}", *(str(file.relative_to(ROOT)) for file in files)]
    with told.open("wb") as out:
        running[name] = subprocess.Popen(line, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=ROOT)
        code = running[name].wait()
    if code == 0:
        subprocess.run(["rm", "-rf", str(folder / name)], check=False)
    return Ended(name, code, told.read_text(errors="replace"), time.monotonic() - began)


def main(lanes: int) -> int:
    """Run all; returns the first exit code that is not 0. What failed is said last."""
    work = shares(file for folder in FOLDERS for file in (ROOT / "tests" / folder).rglob("test_*.py"))
    anywhere = [name for name in (*SHARES.values(), "others") if name in work]
    began, running, failed = time.monotonic(), dict[str, "subprocess.Popen[bytes]"](), list[Ended]()
    folder = Path(tempfile.mkdtemp(prefix="lprl-tests-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
    with ThreadPoolExecutor(lanes) as in_lanes, ThreadPoolExecutor(len(anywhere)) as beside:
        try:
            started = [(beside if name in anywhere else in_lanes).submit(run, name, work[name], folder, running) for name in work]
            for ended in (future.result() for future in as_completed(started)):
                print(f"== {ended.name}: {'ended' if ended.code == 0 else 'FAILED'} after {ended.seconds / 60:.1f} minutes")
                print(ended.said if ended.code == 0 else "its words come last", flush=True)
                failed += [ended] * (ended.code != 0)
        finally:
            for future in started:
                future.cancel()
            for process in running.values():
                process.terminate()
    for ended in failed:
        print(f"== {ended.name} FAILED:\n{ended.said}")
    print(f"{len(work)} lanes in {(time.monotonic() - began) / 60:.1f} minutes; failed: {', '.join(e.name for e in failed) or 'none'}")
    if failed:
        print(f"what their tests left behind: {folder}")
    else:
        subprocess.run(["rm", "-rf", str(folder)], check=False)
    return next((ended.code for ended in failed), 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
