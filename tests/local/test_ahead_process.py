"""kill -9 of a driver that generates ahead, at random moments: no prompt is lost, none trained twice, no sample older than allowed.

With LPRL_CRASHES=all at 20 moments, else at three; lost engines and trainers: tests/unit/lprl_workload/rl/test_ahead.py.
"""

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

from tests.local.forker import Forker

from lprl_fixtures.runs import run_config

KILLS = 20 if os.environ.get("LPRL_CRASHES") == "all" else 3
STEPS, PROMPTS, ALLOWED, EVERY = 18, 4, 2, 3
AHEAD: dict[str, Any] = {
    "job_name": "shaken",
    "algorithm": {"steps": STEPS, "max_staleness": ALLOWED, "rollout_batch_size": PROMPTS, "correction": {"type": "tis"}},
    "ranks": {"placement": "split", "nodes": 2, "rollout_nodes": 1, "engines": 2},
    "checkpoint": {"directory": {"volume": "all", "path": "runs/shaken"}, "every_steps": EVERY, "export_formats": []},
}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def killed_once(forker: Forker, root: Path, chance: random.Random, kills: int) -> int:
    """One run from its start to its end, killed up to `kills` times on the way; returns how often it was."""
    config, folder = root / "shaken.json", root / "all" / "runs" / f"shaken-{chance.randrange(1 << 30)}"
    place = {"volume": "all", "path": f"runs/{folder.name}"}
    checkpoint = {"checkpoint": {**AHEAD["checkpoint"], "directory": place}}
    config.write_text(run_config(root, AHEAD | checkpoint).model_dump_json(by_alias=True))
    for attempt in range(1, kills + 2):
        newest = max((int(path.name.removeprefix("step-")) for path in folder.glob("step-??????")), default=0)
        ahead = [step for step in range(EVERY, STEPS, EVERY) if step > newest]
        last = attempt > kills or not ahead
        # Somewhere behind a checkpoint of our choice: of a machine's speed only the exact moment depends.
        limit, once = (600.0, "-") if last else (chance.uniform(0, 0.3), str(folder / f"step-{chance.choice(ahead):06d}"))
        code = forker.run(f"train --config {config} --attempt {attempt} --in-process", limit, once)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    rows = rows_of(folder)
    assert [(row["step"], row["prompts_from"], row["prompts_to"]) for row in rows] == [
        (step + 1, step * PROMPTS, (step + 1) * PROMPTS) for step in range(STEPS)
    ]
    assert all(0 <= row["staleness_max"] <= ALLOWED for row in rows)
    return attempt - 1


def test_a_killed_driver_loses_no_prompt_and_trains_none_twice(train_root: Path) -> None:
    env = {"LPRL_VOLUMES_ROOT": str(train_root), "LPRL_LOCAL_CONFIGMAPS": str(train_root / "cm"), "OMP_NUM_THREADS": "1"}
    forker, chance, kills = Forker(env), random.Random(5), 0
    while kills < KILLS:
        kills += killed_once(forker, train_root, chance, min(4, KILLS - kills))
