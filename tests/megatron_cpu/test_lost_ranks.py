"""Ranks of Megatron that are killed in mid-step, while others wait in a collective, and during a save, under a real Ray.

Each time all ranks are made anew and go on from the last checkpoint; the run ends bit for bit as one that nothing happens to.
"""

import json
from pathlib import Path
from typing import Any

from tests.local.test_train_faults import FAULTY, LOST

from lprl_fixtures.runs import merged

STEPS = 8
RUN = {
    "algorithm": {"steps": STEPS},
    "evaluation": {"every_steps": 4},
    "progress": {"interval_seconds": 0.2},
    "stall_seconds": 600,
    "refill_steps": 1,
    "backends": {"trainer": "megatron"},
    "trainer": {"pipeline": 2, "recompute": "full"},
    "ranks": {"nodes": 2, "trainer_ranks": 2, "data_parallel": 1, "engines": 2, "trainer_nodes": 2},
}
STEP = "pass-train.0"
FAULTS = [STEP, STEP, STEP, "kill-collect.1", STEP, STEP, "kill-save.1"]
"""Rank 1 has its gradients, and rank 0 waits to add them up; then, two steps later, rank 1 writes a checkpoint."""


def test_a_rank_that_is_killed_anywhere_changes_nothing(driver: Any, ray_nodes: Any, train_root: Path) -> None:
    for _ in range(2):
        ray_nodes.worker(trainer=1, rollout=1)
    whole = driver(ray_nodes, train_root, "calm", changes=RUN).wait()
    (folder := train_root / "faults").mkdir()
    for number, fault in enumerate(FAULTS, 1):
        (folder / f"{number:02d}-{fault}").touch()
    run = driver(ray_nodes, train_root, "killed", changes=merged(RUN, {}), program=(str(FAULTY), str(folder))).wait()
    text = run.log.read_text()
    assert [who for _, who, _ in LOST.findall(text)] == ["trainer"] * 2, text[-6000:]
    assert not list(folder.glob("[0-9]*")), "all of it happened"
    assert json.loads(run.term.read_text())["progress"]["trainerRestarts"] == 2
    assert run.outcome() == whole.outcome()
