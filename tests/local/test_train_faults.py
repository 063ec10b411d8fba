"""Ranks and engines that stop, hang and die one after the other, at points of a run, on a real local Ray with two of each.

Every one is found within its limit, charged to its own budget and named with what it was at; the run ends bit for bit as a calm one.
"""

import json
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from lprl_fixtures.runs import merged

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.timeout(1500)]
FAULTY = Path(__file__).with_name("faulty.py")
STALL_S = 36
LIMIT_S = STALL_S / 2
STEPS = 20
TWO = {
    "algorithm": {"steps": STEPS},
    "evaluation": {"every_steps": 10},
    "progress": {"interval_seconds": 0.2},
    "stall_seconds": STALL_S,
    "ranks": {"nodes": 2, "trainer_ranks": 2, "data_parallel": 2, "engines": 2, "trainer_nodes": 2},
}
BROADCAST = {"ranks": {"placement": "split", "nodes": 3, "rollout_nodes": 1}, "weight_sync": {"transport": "broadcast"}}
LOST = re.compile(r"^(\S+ \S+) WARNING \S+ (engine \d|trainer) lost at step \d+ \((.*)\); (?:replacing|rebuilding)", re.MULTILINE)
ENGINE, TRAINER = "engine", "trainer"
STEP = ("pass-train.0", "", "")


@pytest.fixture(scope="module")
def whole(driver: Any, ray_head: Any, train_root: Path) -> Any:
    """The run that nothing happens to."""
    for _ in range(2):
        ray_head.worker(trainer=1, rollout=1)
    found = driver(ray_head, train_root, "whole", changes=TWO).wait()
    ray_head.stop(keep=1)
    return found


class Shaken:
    """A run with faults, each [HOW-WHERE, whose budget, what is said of it]; "pass-" ones only keep the next one for later."""

    def __init__(
        self, driver: Any, ray: Any, root: Path, name: str, changes: dict[str, Any], faults: Sequence[tuple[str, str, str]]
    ) -> None:
        self.folder, self.faults = root / f"faults-{name}", faults
        self.folder.mkdir()
        for number, (fault, _, _) in enumerate(faults, 1):
            (self.folder / f"{number:02d}-{fault}").touch()
        self.run = driver(ray, root, name, changes=merged(TWO, changes), program=(str(FAULTY), str(self.folder)))
        self.run.wait(seconds=1200)

    def check(self, whole: Any) -> None:
        """Each was found in time and by its name, in this order, and changed nothing."""
        text = self.run.log.read_text()
        found, happened = LOST.findall(text), [(n, f) for n, f in enumerate(self.faults, 1) if not f[0].startswith("pass")]
        assert [who.split()[0] for _, who, _ in found] == [whose for _, (_, whose, _) in happened], text[-6000:]
        for (at, who, why), (number, (fault, _, words)) in zip(found, happened, strict=True):
            began = float((self.folder / f"taken-{number:02d}").read_text())
            took = datetime.strptime(at, "%Y-%m-%d %H:%M:%S,%f").timestamp() - began
            print(f"{fault}: {who} lost after {took:.1f} s ({why})")
            assert took < LIMIT_S + 10, (fault, why)
            assert re.search(words, why), (fault, why)
        progress = json.loads(self.run.term.read_text())["progress"]
        counts = [sum(whose == kind for _, (_, whose, _) in happened) for kind in (ENGINE, TRAINER)]
        assert [progress["engineRestarts"], progress["trainerRestarts"]] == counts
        assert self.run.outcome() == whole.outcome()


def test_whoever_stops_or_hangs_is_found_within_its_limit_and_charged_to_its_own_budget(
    driver: Any, ray_nodes: Any, train_root: Path, whole: Any
) -> None:
    for slots in ({"trainer": 1}, {"trainer": 1}, {"rollout": 2}):
        ray_nodes.worker(**slots)
    faults = [  # the third: rank 0 waits in the gradients' all-reduce, which rank 1 never enters
        ("stop-generate", ENGINE, r"generation: engine \d on \S+ did not answer for 18 s"),
        ("sleep-load.2", ENGINE, r"weight update: engine \d(?: on \S+)? did not move for 10 s"),  # a broadcast of 6 s breaks off before
        ("sleep-train.1", TRAINER, r"trainer: train: rank \d on \S+ did not move for 18 s, nor did the others"),
        ("stop-vote.1", TRAINER, r"trainer: push: rank 1 on \S+ did not answer for 18 s"),
        ("stop-join", ENGINE, r"weight update: engine \d(?: on \S+)? did not answer for 10 s"),
    ]
    Shaken(driver, ray_nodes, train_root, "hung", BROADCAST, faults).check(whole)


def test_whoever_dies_at_any_bucket_of_a_push_changes_nothing(driver: Any, ray_nodes: Any, train_root: Path, whole: Any) -> None:
    """Through Ray's object store: of two ranks that send two buckets each to two engines. And an engine that hangs while both wait."""
    for _ in range(2):
        ray_nodes.worker(trainer=1, rollout=1)
    faults: list[tuple[str, str, str]] = []
    for n in (1, 2, 3, 4):
        faults += [STEP, (f"kill-load.{n}", ENGINE, r"engine \d(?: on \S+)?: The actor died")]
    for rank, n in ((0, 1), (0, 2), (1, 1), (1, 2)):
        # So many that a checkpoint lies between two of them: no budget runs out.
        faults += [STEP, STEP, STEP, (f"kill-send.{rank}.{n}", TRAINER, rf"trainer: push: rank {rank} on \S+: The actor died")]
    # Both ranks wait for it; the one that does not give it up sees it die of that, and may be heard first.
    faults += [STEP, ("sleep-load.3", ENGINE, r"weight update: engine \d(?: on \S+)?(?: did not move for 12 s|: The actor died)")]
    changes = {"refill_steps": 1, "weight_sync": {"transport": "local"}}
    Shaken(driver, ray_nodes, train_root, "dying", changes, faults).check(whole)
