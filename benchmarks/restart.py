"""How long a restart takes and what the operator writes for it, this checkout beside the one before attempts shared a RayCluster.

python benchmarks/restart.py [--against COMMIT] [--restarts N] [--nodes N]

Each side is a control plane of its own (etcd, API server, controllers, KubeRay, kwok) with an operator of that side's sources; both are
there all the time and restart in turns, so that whatever else the machine does meets both alike. The driver of a job that holds still
crashes; from the crash to the next attempt's head container and to its driver's first line (all workers are there), by the simulated
driver's own clock; no back-off. Writes: requests of the operator that are no GET, without leases, until it rests again.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from sides import LIMIT_S, Found, answer, ask, calls, two_sides, waited

BEFORE = "b49aa95"
"""The last commit with a RayCluster for each attempt."""
NAMESPACE, JOB = "restarts", "toy"
REST_S = 4.0
"""Without a write for so long the operator rests."""
HOLDS = {"step_s": 0.1, "report_s": 900, "hold_at": 2}


class Side:
    """One tree's control plane, operator and job."""

    def __init__(self, tree: Path, folder: Path, nodes: int) -> None:
        sys.path.insert(0, str(tree))
        from tests.control_plane.harness import manifests, operator, plane, world

        self.plane = plane.ControlPlane(folder / "plane")
        try:
            self.plane.start_kwok()
            log = folder / "drivers.jsonl"
            self.plane.start_drivers(log)
            self.operator = operator.Operator(self.plane)
            self.operator.wait_healthy(LIMIT_S)
            plane.make_namespace(self.plane.api, NAMESPACE)
            self.plane.add_nodes(NAMESPACE, "cpu", nodes + 1)
            self.world = world.World(self.plane, NAMESPACE, log)
            policy = {"backoffSeconds": 0, "maxRestarts": 1000}
            topology = {"accelerator": "cpu", "nodes": nodes}
            self.world.apply(manifests.toy(JOB, NAMESPACE, HOLDS, steps=1000, failurePolicy=policy, topology=topology))
            waited("the first attempt", lambda: self.runs(1))
        except BaseException:
            self.plane.down()
            raise

    def runs(self, attempt: int) -> bool:
        """Whether an attempt is told as running, its worker nodes ready."""
        found = self.world.status(JOB)
        return (found.get("phase"), found.get("attempt")) == ("Running", attempt)

    def writes(self) -> dict[str, float]:
        """Count the operator's writes so far, by verb and kind."""
        return {name: value for name, value in calls(self.operator.metrics()).items() if not name.startswith("GET ")}

    def rested(self) -> dict[str, float]:
        """Wait until nothing is written any more, and return what was."""
        last, since = self.writes(), time.monotonic()
        while time.monotonic() - since < REST_S:
            time.sleep(0.5)
            now = self.writes()
            if now != last:
                last, since = now, time.monotonic()
        return last

    def at(self, event: str, attempt: int) -> float:
        """Return when a driver said something first."""
        return float(next((e["at"] for e in self.world.driver_log(JOB, event) if e["attempt"] == attempt), 0.0))

    def restart(self, attempt: int) -> Found:
        """Crash this attempt, and return what the next one took."""
        before = self.rested()
        self.world.script(JOB, crash={"attempts": [attempt], "step": 0, "code": 1, "message": f"by chance {attempt}"}, **HOLDS)
        failed = waited("the crash", lambda: self.at("end", attempt))
        head = waited("the next head", lambda: self.at("container", attempt + 1))
        started = waited("the next driver", lambda: self.at("start", attempt + 1))
        waited("Running", lambda: self.runs(attempt + 1))
        after = self.rested()
        writes = {name: after[name] - before.get(name, 0) for name in sorted(after) if after[name] > before.get(name, 0)}
        return {"head": head - failed, "start": started - failed, "writes": writes}


def one_side(tree: Path, nodes: int) -> None:
    """Restart once for each question, and answer with what it took."""
    with tempfile.TemporaryDirectory(prefix="lprl-restart-") as folder:
        side, attempt = Side(tree, Path(folder), nodes), 0

        def again(_: str) -> Found:
            nonlocal attempt
            attempt += 1
            return side.restart(attempt)

        try:
            answer(again)
        finally:
            side.operator.stop()
            side.plane.down()


def table(before: list[Found], now: list[Found]) -> str:
    """Return the medians as Markdown."""
    rows = {
        "crash to the next attempt's head container, s": lambda r: r["head"],
        "crash to its driver's start (all workers), s": lambda r: r["start"],
        "writes without events": lambda r: sum(n for k, n in r["writes"].items() if not k.endswith(" events")),
        "events": lambda r: sum(n for k, n in r["writes"].items() if k.endswith(" events")),
    }
    lines = ["| of one restart, median (least to most) | a RayCluster for each attempt | one RayCluster |", "|---|---|---|"]
    for name, value in rows.items():
        cells = []
        for side in (before, now):
            found = sorted(value(r) for r in side)
            cells.append(f"{statistics.median(found):.3g} ({found[0]:.3g} to {found[-1]:.3g})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for name, side in (("before", before), ("now", now)):
        kinds = {k for r in side for k in r["writes"]}
        each = {k: statistics.median(r["writes"].get(k, 0) for r in side) for k in sorted(kinds)}
        lines.append(f"\nWrites {name}: " + ", ".join(f"{n:g} {k}" for k, n in each.items() if n))
    return "\n".join(lines)


def main() -> None:
    """Measure in turns and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--against", default=BEFORE, metavar="COMMIT")
    options.add_argument("--restarts", type=int, default=10)
    options.add_argument("--nodes", type=int, default=2)
    options.add_argument("--side", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.side is not None:
        one_side(chosen.side, chosen.nodes)
        return
    found: list[list[Found]] = [[], []]
    with two_sides(Path(__file__), chosen.against, "--nodes", str(chosen.nodes)) as sides:
        for number in range(chosen.restarts):
            for which in (0, 1) if number % 2 else (1, 0):
                found[which].append(ask(sides[which], "restart")())
    print(table(*found))


if __name__ == "__main__":
    main()
