"""`make test`: tests that start servers and runs, in lanes (conftest.py), and beside them those that need neither.

Two runs of pytest and not one with more lanes: each lane of pytest-xdist imports and collects whatever any lane runs, and all tests take
sixteen processor-seconds to collect. Hangs and kills with limits of time come after it: `make test-faults`.

    python tests/side_by_side.py LANES
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
LANES = (
    "--dist",
    "loadgroup",
    "--no-loadscope-reorder",
    "-m",
    "not faults",
    "tests/control_plane",
    "tests/local",
    "tests/chart",
    "tests/contract",
)
ALONE = ("-n", "2", "tests/repo", "tests/golden", "tests/unit")


def main(lanes: str) -> int:
    """Run both; the second's output comes after the first's. Returns the first exit code that is not 0."""
    pytest = [str(Path(sys.executable).with_name("pytest")), "-q"]
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as told, subprocess.Popen([*pytest, *ALONE], stdout=told, stderr=told, cwd=ROOT) as alone:
        try:
            in_lanes = subprocess.run([*pytest, "-n", lanes, *LANES], check=False, cwd=ROOT).returncode
            alone.wait()
        finally:
            if alone.poll() is None:
                alone.terminate()
        told.seek(0)
        sys.stdout.write(told.read())
    print(f"both together: {(time.monotonic() - began) / 60:.1f} minutes")
    return in_lanes or alone.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
