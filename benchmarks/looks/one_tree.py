"""CPU time of looks at jobs in each phase, of the sources in one tree. Run by run.py, in a process for each tree.

python one_tree.py TREE LOOKS      prints {phase: {"whole": microseconds, "pure": microseconds}}

A look is `controller.reconcile` with the place of the unit tests (an API server in memory); `pure` is `controller.consider` alone: parse,
rules, plan, render, decide, project. Nothing has changed since the last look, as at nearly all of them. Many jobs in turn, none of them
twice in a row: what is kept for one job does not answer for all.
"""

import importlib.util
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

JOBS = 64
TICKS = 400
"""After so many the life of a job is over, or something is wrong."""
PHASES = ("Inspecting", "Converting", "Provisioning", "Running", "Suspended", "Succeeded")


def loaded(tree: Path) -> ModuleType:
    """Return the unit tests' world of a tree, which earlier ones keep among their fixtures."""
    sys.path.insert(0, str(tree))
    here = tree / "tests/unit/lprl_operator"
    file = here / "world.py" if (here / "world.py").exists() else here / "conftest.py"
    spec = importlib.util.spec_from_file_location("world", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["world"] = module
    spec.loader.exec_module(module)
    return module


class Job:
    """A job that is looked at."""

    def __init__(self, lib: ModuleType, number: int) -> None:
        from lprl_operator import controller  # of the tree that is measured

        self.lib, self.controller, self.key = lib, controller, controller.Key("rl", f"job-{number}")
        self.world = lib.World(lib.manifest(name=f"job-{number}", uid=f"uid-{number}"), seed=number)

    @property
    def phase(self) -> str:
        """The job's phase as its status says it."""
        return str(self.world.document.get("status", {}).get("phase", ""))

    def look(self) -> None:
        """Look at it once."""
        self.controller.reconcile(self.world.document, self.world, self.world.now, self.lib.SETTINGS)

    def settle(self) -> None:
        """Look until nothing is written any more."""
        written = -1
        while self.world.writes != written:
            written = self.world.writes
            self.look()

    def lead_to(self, phase: str) -> None:
        """Let time pass until the job is in `phase` and at rest there."""
        for _ in range(TICKS):
            if self.phase == "Running" and phase == "Suspended":
                self.world.document["spec"]["suspend"] = True
            self.settle()
            if self.phase == phase:
                return
            self.world.tick()
        raise SystemExit(f"{self.key}: {self.phase}, never {phase}")


def measured(jobs: list[Job], looks: int) -> dict[str, float]:
    """Return microseconds of CPU for one look, whole and without reading or writing."""
    started = time.process_time()
    for number in range(looks):
        jobs[number % len(jobs)].look()
    whole = time.process_time() - started
    seen = [(job, job.world.observe(job.key)) for job in jobs]
    started = time.process_time()
    for number in range(looks):
        job, observed = seen[number % len(seen)]
        job.controller.consider(job.world.document, observed, job.world.now, job.lib.SETTINGS)
    return {"whole": 1e6 * whole / looks, "pure": 1e6 * (time.process_time() - started) / looks}


def main() -> None:
    """Measure every phase."""
    tree, looks = Path(sys.argv[1]), int(sys.argv[2])
    lib = loaded(tree)
    found: dict[str, Any] = {}
    for phase in PHASES:
        jobs = [Job(lib, number) for number in range(JOBS)]
        for job in jobs:
            job.lead_to(phase)
        measured(jobs, JOBS)
        found[phase] = measured(jobs, looks)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
