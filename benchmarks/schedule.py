"""How long the plan of a step takes for 2,048 sequences on meshes up to 256 ranks. Bar: under 1 s each.

python benchmarks/schedule.py
"""

import sys
import time
from typing import Literal

import numpy as np

from lprl_workload.train.mesh import TrainMesh
from lprl_workload.train.step_plan import StepPlan, TokenBudget, schedule

SEQUENCES, LONGEST, BAR_S = 2048, 16384, 1.0
LAYOUTS: tuple[Literal["padded", "packed"], ...] = ("padded", "packed")
MESHES = {
    "1 rank": TrainMesh(),
    "256 data": TrainMesh(dp=256),
    "256: dp32 tp8": TrainMesh(dp=32, tp=8),
    "256: dp4 tp8 pp8 vpp2 ep8": TrainMesh(dp=4, tp=8, pp=8, vpp=2, ep=8),
    "256: dp8 cp4 tp8": TrainMesh(dp=8, cp=4, tp=8),
}


def spread(plan: StepPlan, lengths: list[int]) -> float:
    """Return the largest load of a data index over the mean, the worst of the steps."""
    loads = [[sum(lengths[n] for group in part for n in group) for part in step.parts] for step in plan.steps]
    return max(max(step) * len(step) / sum(step) for step in loads)


def main() -> int:
    """Print a row per mesh; returns 1 when one misses the bar."""
    lengths = np.random.default_rng(0).integers(LONGEST // 64, LONGEST, SEQUENCES).astype(np.int32)
    print(f"| mesh, {SEQUENCES} sequences | layout | micro-batches of a rank, by step | load, largest / mean | seconds |")
    print("|---|---|---|---|---|")
    worst = 0.0
    for name, mesh in MESHES.items():
        for layout in LAYOUTS:
            started = time.perf_counter()
            plan = schedule(lengths, mesh, TokenBudget(LONGEST, 1024, layout))
            seconds = time.perf_counter() - started
            worst = max(worst, seconds)
            counts = ", ".join(str(len(step.parts[0])) for step in plan.steps)
            print(f"| {name} | {layout} | {counts} | {spread(plan, lengths.tolist()):.3f} | {seconds:.3f} |")
    print(f"worst {worst:.3f} s, bar {BAR_S} s")
    return int(worst > BAR_S)


if __name__ == "__main__":
    sys.exit(main())
