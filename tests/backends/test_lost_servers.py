"""A real server that dies in the middle of responses, of a push, and asleep: one run under a real Ray, which goes on by itself."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lprl_workload.rl.recovery import RECOVERIES

STEPS = 7
FAULTS = (("draw", "generation: engine 0"), ("load.2", "weight update: engine 0"), ("asleep", "engine 0"))
LOST = re.compile(r"WARNING \S+ engine 0 lost at step (\d+) \((.*)\); replacing")
LIMIT_S = 2400.0
"""Four starts of a server, each half a minute where nothing else runs, twenty times over."""


@pytest.mark.timeout(2 * LIMIT_S)
def test_a_server_killed_while_it_draws_in_a_push_and_asleep_comes_back_with_the_version_being_served(
    driver: Any, ray_nodes: Any, train_root: Path, tmp_path: Path
) -> None:
    for number, (where, _) in enumerate(FAULTS):
        (tmp_path / f"{number}-{where}").touch()
    ray_nodes.worker(trainer=1, rollout=1)
    changes = {"backends": {"rollout": "sglang"}, "algorithm": {"steps": STEPS}, "sampling": {"max_response_tokens": 24}}
    program = (str(Path(__file__).with_name("lost_servers.py")), str(tmp_path))
    run = driver(ray_nodes, train_root, "lost", changes=changes, program=program)
    run.wait(seconds=LIMIT_S)

    text = run.log.read_text()
    lost = LOST.findall(text)
    assert len(lost) == len(FAULTS), text[-6000:]
    for (_, why), (where, words) in zip(lost, FAULTS, strict=True):
        assert words in why and "killed by signal 9" in why, (where, why)
    progress = json.loads(run.term.read_text())["progress"]
    assert (progress["engineRestarts"], progress["trainerRestarts"]) == (RECOVERIES, 0), "what one stretch of the budget affords"
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1)) and {row["attempt"] for row in rows} == {1}
    edges = [(row["prompts_from"], row["prompts_to"]) for row in rows]
    assert edges == [(4 * number, 4 * number + 4) for number in range(STEPS)], "every prompt is trained on once"
    assert max(row["k3"] for row in rows) < 1e-9, "what was served is what the trainer held"
    assert all(row["staleness_max"] == 0 for row in rows)
