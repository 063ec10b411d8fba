"""kill -9 of a running job at 20 random moments: weights, optimizer, RNG, data position, exports and series end as if nothing had been."""

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tests.local.conftest import outcome_of
from tests.local.forker import Forker

from lprl_fixtures.runs import merged, run_config

KILLS = 20
CHANGES = {
    "algorithm": {"steps": 16},
    "evaluation": {"every_steps": 5},
    "precision": {"training": "int4-qat", "rollout": "int4", "int4": {"group_size": 32}},
    "checkpoint": {"every_steps": 3, "export_formats": ["bf16", "int4"]},
    "progress": {"interval_seconds": 0.2},
}
CHECKPOINTS = range(3, 16, 3)


@pytest.fixture
def forker(train_root: Path) -> Forker:
    return Forker({"LPRL_VOLUMES_ROOT": str(train_root), "LPRL_LOCAL_CONFIGMAPS": str(train_root / "cm"), "OMP_NUM_THREADS": "1"})


def command(root: Path, name: str, attempt: int) -> str:
    base = {"job_name": name, "checkpoint": {"directory": {"volume": "all", "path": f"runs/{name}"}}}
    config = root / f"{name}.json"
    config.write_text(run_config(root, merged(base, CHANGES)).model_dump_json(by_alias=True))
    return f"train --config {config} --attempt {attempt} --in-process"


def test_killed_at_random_moments_ends_as_an_uninterrupted_run(forker: Forker, train_root: Path) -> None:
    before = time.monotonic()
    assert forker.run(command(train_root, "calm", 1)) == 0
    seconds = time.monotonic() - before
    wanted = outcome_of(train_root / "all" / "runs" / "calm")
    chance = random.Random(7)
    kills, steps_seen, rounds = 0, set[int](), 0
    while kills < KILLS:
        rounds += 1
        folder = train_root / "all" / "runs" / f"shaken-{rounds}"
        for attempt in range(1, 100):
            # Up to six kills a round, then it may finish. In turn anywhere by the clock, start and export included, and somewhere
            # after a checkpoint of our choice, so that the moments spread also when the machine's speed has changed since the calm run.
            limit, once = (chance.uniform(0, seconds), "-") if attempt <= 6 else (600.0, "-")
            if attempt in (2, 4, 6):
                later = [step for step in CHECKPOINTS if step > max(_newest_step(folder), default=0)]
                limit, once = (limit / 8, str(folder / f"step-{chance.choice(later):06d}")) if later else (limit, once)
            code = forker.run(command(train_root, folder.name, attempt), limit, once)
            if code == 0:
                break
            assert code == -signal.SIGKILL
            kills += 1
            steps_seen |= _newest_step(folder)
        found = outcome_of(folder)
        for part, value in wanted.items():
            assert found[part] == value, (rounds, part)
    assert len(steps_seen) >= 3, "the moments were not spread over the run"


def _newest_step(folder: Path) -> set[int]:
    return {int(p.name.removeprefix("step-")) for p in sorted(folder.glob("step-??????"))[-1:]}


def test_outcome_sees_a_difference(forker: Forker, train_root: Path) -> None:
    """The comparison itself: another seed gives another outcome in every part that carries values."""
    assert forker.run(command(train_root, "one", 1)) == 0
    config: dict[str, Any] = merged(CHANGES, {"algorithm": {"seed": 1}})
    path = train_root / "other.json"
    base = {"job_name": "other", "checkpoint": {"directory": {"volume": "all", "path": "runs/other"}}}
    path.write_text(run_config(train_root, merged(base, config)).model_dump_json(by_alias=True))
    assert forker.run(f"train --config {path} --attempt 1 --in-process") == 0
    one, other = (outcome_of(train_root / "all" / "runs" / name) for name in ("one", "other"))
    assert all(one[part] != other[part] for part in ("series", "files", "exports"))
