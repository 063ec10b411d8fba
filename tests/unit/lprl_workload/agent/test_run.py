"""Whole runs whose manifest names a rollout, in this process: real engine and trainer of a tiny model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.unit.lprl_workload.agent import rollouts
from tests.unit.lprl_workload.agent.rollouts import STOPS

from lprl_api.spec.topology import Stability
from lprl_api.wire.progress import Control, Progress
from lprl_fixtures.runs import merged, run_config, write_inputs
from lprl_workload.config import ResolvedPaths
from lprl_workload.launch.build import assemble, local_groups
from lprl_workload.metrics.configmaps import FileStore
from lprl_workload.metrics.progress import Reporter
from lprl_workload.process.errors import EpisodesFailedError

ROLLOUTS = "tests.unit.lprl_workload.agent.rollouts"
CHANGES: dict[str, Any] = {
    "algorithm": {"steps": 2},
    "data": {"reward": {"function": f"{ROLLOUTS}:judge"}},
    "sampling": {"max_response_tokens": 8, "stop_token_ids": STOPS},
    "evaluation": {"every_steps": 2, "at_start": False},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("run")
    write_inputs(found, train=8, heldout=4)
    return found


class Ran:
    """A run, and what it left."""

    def __init__(self, root: Path, name: str, episode: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        named = {"job_name": name, "checkpoint": {"directory": {"path": f"runs/{name}"}}, "episode": episode}
        self.run = run_config(root, merged(merged(CHANGES, named), changes))
        self.folder = root / "all" / "runs" / name
        first = Progress(attempt=1, sequence=0, phase="starting", step=0, steps=2)
        control = Control(steps=2, stability=Stability())
        self.reporter = Reporter(FileStore(self.folder / "progress"), first, 60.0, control)

    def go(self) -> "Ran":
        made = assemble(self.run, ResolvedPaths.of(self.run), 1, self.reporter, local_groups)
        try:
            made.loop.run(lambda: False)
        finally:
            made.close()
            self.reporter.close()
        return self

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def ran(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LPRL_VOLUMES_ROOT", str(root))
    return lambda name, function, changes=None, **episode: Ran(
        root, name, {"type": "python", "function": f"{ROLLOUTS}:{function}", **episode}, changes or {}
    )


def test_a_rollout_of_the_users_own_trains_over_several_turns(ran: Any) -> None:
    found = ran("two", "two_turns").go()
    assert [row["step"] for row in found.rows] == [1, 2]
    for row in found.rows:
        assert 1 < row["turns_per_episode"] <= 2 and row["failed_episodes"] == row["aborted_episodes"] == 0
        assert row["grad_norm"] > 0
        assert row["k3"] < 1e-6 and row["logprob_diff"] < 1e-5, "as of a single turn: engine and trainer agree on every drawn token"
    told = found.reporter.progress.episodes
    assert told is not None and (told.drawn, told.failed) == (16, 0) and told.turns == found.rows[-1]["turns_per_episode"]


def test_failed_episodes_are_counted_and_told_and_leave_the_rest_to_learn_from(ran: Any, caplog: pytest.LogCaptureFixture) -> None:
    found = ran("some", "some_fail", max_failed_fraction=1.0).go()
    failed = [row["failed_episodes"] for row in found.rows]
    assert all(0 < count < 16 for count in failed) and all(row["grad_norm"] > 0 for row in found.rows)
    told = found.reporter.progress.episodes
    assert told is not None and told.failed == failed[-1]
    assert "LookupError: no board left" in told.failures[0] and "rollouts.py line" in told.failures[0]
    assert "episodes failed and take no part in the step" in caplog.text


def test_too_many_failed_episodes_end_the_attempt_with_the_first_of_them(ran: Any) -> None:
    with pytest.raises(EpisodesFailedError, match=r"step 1: 16 of 16 episodes failed, more than episode\.maxFailedFraction \(0\.25\)") as e:
        ran("all", "all_fail").go()
    assert "LookupError: no board left" in str(e.value)


def test_what_an_episode_waits_for_in_vain_costs_that_episode_alone(ran: Any, caplog: pytest.LogCaptureFixture) -> None:
    try:
        found = ran("rough", "rough", {"evaluation": None}, timeout_seconds=1.0, max_failed_fraction=1.0).go()
        assert not rollouts.ENDED, "the run waited for a thread"
    finally:
        rollouts.RELEASED.set()
    assert all(0 < row["failed_episodes"] < 16 for row in found.rows)
    assert "CancelledError" in caplog.text and "took more than 1 s" in caplog.text
