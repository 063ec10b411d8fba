"""kill -9 of driver, engine and trainer rank of a run that generates ahead, on a real Ray: no prompt is lost and none trained twice.

With LPRL_CRASHES=all at 20 random moments, else an engine and a rank once each (drivers: test_ahead_process.py).
"""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lprl_api.names import ExitCode

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.timeout(5400 if os.environ.get("LPRL_CRASHES") == "all" else 1800)]
ALLOWED, PROMPTS = 2, 4
KILLS = 20 if os.environ.get("LPRL_CRASHES") == "all" else 2
KINDS = ("EngineActorHost", "TrainActorHost", "driver")
LIMIT_S = 600.0
AHEAD = {
    "algorithm": {"steps": 100_000, "max_staleness": ALLOWED, "rollout_batch_size": PROMPTS, "correction": {"type": "tis"}},
    "ranks": {"placement": "split", "nodes": 2, "rollout_nodes": 1, "engines": 2},
    "weight_sync": {"transport": "auto"},
    "data": {"reward": {"function": "lprl_fixtures.runs:even_share_slowly"}},
    "evaluation": None,
    "checkpoint": {"every_steps": 3, "export_formats": []},
    "progress": {"interval_seconds": 0.2},
}


class Shaken:
    """A run and what is done to it; a driver that is gone is started again as the operator would."""

    def __init__(self, driver: Any, ray: Any, root: Path) -> None:
        self._make = lambda attempt: driver(ray, root, "shaken", attempt, AHEAD)
        self.attempt, self.run = 1, self._make(1)
        self.gave_up = 0

    def step(self) -> int:
        found = self.run.progress_file
        return int(json.loads(found.read_text())["step"]) if found.exists() else 0

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait; an attempt that spent its recoveries is followed by the next."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            code = self.run.process.poll()
            if code is not None:
                assert code == ExitCode.TRAINER_LOST, self.run.log.read_text()[-4000:]
                self.gave_up += 1
                self.again()
            assert time.monotonic() < deadline, self.run.log.read_text()[-4000:]
            time.sleep(0.05)

    def again(self) -> None:
        self.attempt += 1
        self.run = self._make(self.attempt)

    def kill(self, kind: str, chance: random.Random) -> None:
        if kind == "driver":
            self.run.process.kill()
            self.run.process.wait()
            self.again()
            return
        self.until(lambda: bool(self.run.actors(kind)))
        os.kill(chance.choice(self.run.actors(kind)), signal.SIGKILL)


def test_killed_at_random_moments_no_prompt_is_lost_and_none_is_trained_twice(driver: Any, ray_nodes: Any, train_root: Path) -> None:
    ray_nodes.worker(trainer=1)
    ray_nodes.worker(rollout=2)
    chance = random.Random(11)
    shaken = Shaken(driver, ray_nodes, train_root)
    for number in range(KILLS):
        wanted = shaken.step() + chance.randint(2, 4)
        shaken.until(lambda wanted=wanted: shaken.step() >= wanted)
        time.sleep(chance.uniform(0, 1))  # anywhere in a step: any moment is as good
        shaken.kill(KINDS[number % len(KINDS)], chance)
    shaken.until(lambda: shaken.step() > 0)  # a driver that just began does not know yet
    wanted = shaken.step() + 4
    shaken.until(lambda: shaken.step() >= wanted)
    shaken.run.process.terminate()
    shaken.run.wait(ExitCode.SUSPENDED)
    rows = [json.loads(line) for line in (shaken.run.folder / "metrics.jsonl").read_text().splitlines()]
    steps = [(row["step"], row["prompts_from"], row["prompts_to"]) for row in rows]
    assert steps == [(n + 1, n * PROMPTS, (n + 1) * PROMPTS) for n in range(len(rows))]
    assert {0 <= row["staleness_max"] <= ALLOWED for row in rows} == {True}
    assert max(row["staleness_max"] for row in rows) > 0, "nothing was generated ahead"
    assert shaken.attempt - 1 - shaken.gave_up == KILLS // len(KINDS), "only killed drivers and spent budgets make attempts"
    state = json.loads((sorted(shaken.run.folder.glob("step-??????"))[-1] / "state.json").read_text())
    assert (state["step"], state["position"]) == steps[-1][::2]
    print(f"{KILLS} kills, {len(rows)} steps, {shaken.attempt} attempts, {shaken.gave_up} of them gave up")
