"""Episodes that nobody wants any more: whatever they wait for is left behind, and they come back as aborted."""

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.lprl_workload.agent import rollouts
from tests.unit.lprl_workload.agent.test_run import ROLLOUTS, Ran
from tests.unit.lprl_workload.agent.test_runner import PARAMS, ROW, folder, rollout
from tests.unit.lprl_workload.agent.test_tool_loop import CALL, PROMPT, Played

from lprl_fixtures.runs import write_inputs
from lprl_workload.agent import tool_python
from lprl_workload.agent.runner import abort_episodes
from lprl_workload.config import ResolvedPaths
from lprl_workload.data import GenerationRequest
from lprl_workload.episode import Episode, described
from lprl_workload.launch.build import Assembled, assemble, local_groups
from lprl_workload.process.errors import TrainerLostError

__all__ = ["folder", "rollout"]
LIMIT_S = 180.0
SOON_S = 60.0
"""Far more than giving up takes on any machine, far less than the ten minutes that are waited for."""
SPLIT = {"placement": "split", "nodes": 2, "rollout_nodes": 1, "engines": 2}
STEPS, PROMPTS = 4, 4


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(rollouts, "WAITING", threading.Semaphore(0))
    rollouts.MAY_END.clear()
    yield
    rollouts.MAY_END.set()


@pytest.fixture
def deaf() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/tool"


class Given:
    """A run that generates ahead, whose episodes wait for ten minutes from the prompts of step 2 on."""

    def __init__(self, root: Path, address: str) -> None:
        function = {"description": "Waits.", "parameters": {"type": "object"}, "timeout_seconds": 600}
        tools = [{"name": name, "function": f"{ROLLOUTS}:{name}", **function} for name in ("minute", "long_minute")]
        episode = {"type": "python", "function": f"{ROLLOUTS}:waits", "tools": [*tools, {"name": "address", "url": address, **function}]}
        algorithm = {"steps": STEPS, "max_staleness": 2, "rollout_batch_size": PROMPTS, "correction": {"type": "tis"}}
        changes = {"ranks": SPLIT, "algorithm": algorithm, "evaluation": None, "checkpoint": {"every_steps": 1}}
        changes["data"] = {"shuffle": False, "reward": {"function": "lprl_fixtures.runs:even_share"}}
        self.made = Ran(root, "given", episode, changes)

    def attempt(self, number: int) -> Assembled:
        return assemble(self.made.run, ResolvedPaths.of(self.made.run), number, self.made.reporter, local_groups)

    def check(self) -> None:
        steps = [(row["step"], row["prompts_from"], row["prompts_to"]) for row in self.made.rows]
        assert steps == [(n + 1, n * PROMPTS, (n + 1) * PROMPTS) for n in range(STEPS)]
        assert all(row["failed_episodes"] == row["aborted_episodes"] == 0 for row in self.made.rows), "nothing given up is in a step"


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: None, deaf: str) -> Iterator[Given]:
    monkeypatch.setenv("LPRL_VOLUMES_ROOT", str(tmp_path))
    monkeypatch.setenv("WAITS_FROM", str(PROMPTS))
    write_inputs(tmp_path, train=4 * PROMPTS, heldout=4)
    found = Given(tmp_path, deaf)
    yield found
    found.made.reporter.close()


def many_wait(count: int = 8) -> bool:
    """Whether so many episodes wait, of every kind."""
    return all(rollouts.WAITING.acquire(timeout=LIMIT_S) for _ in range(count))


def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """No task or exception is left that nobody looked at."""
    gc.collect()
    assert "was destroyed" not in caplog.text and "never retrieved" not in caplog.text


def test_a_suspended_run_waits_for_no_tool_and_goes_on_as_if_nothing_had_been(given: Given, caplog: pytest.LogCaptureFixture) -> None:
    assembled, asked = given.attempt(1), []

    def stop() -> bool:
        if not asked and assembled.loop.state.step == 1 and many_wait():
            asked.append(time.monotonic())
        return bool(asked)

    assert assembled.loop.run(stop) == "suspended"
    took = time.monotonic() - asked[0]
    assert took < SOON_S and not rollouts.MAY_END.is_set(), took
    print(f"suspended within {took:.2f} s")
    assert assembled.loop.state.step == 1 and assembled.loop._ahead.dropped > 8
    assembled.close()
    quiet(caplog)
    rollouts.MAY_END.set()
    again = given.attempt(2)
    assert again.loop.run(lambda: False) == "finished"
    again.close()
    given.check()


def test_a_run_suspended_while_it_waits_for_its_batch_gives_that_up_too(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAITS_FROM", "0")
    assembled, looks = given.attempt(1), []

    def stop() -> bool:
        looks.append(time.monotonic())
        return len(looks) > 1 and (len(looks) > 2 or many_wait())  # first when the run begins, then while it waits

    assert assembled.loop.run(stop) == "suspended"
    assert time.monotonic() - looks[2] < SOON_S and assembled.loop.state.step == 0
    assembled.close()


def test_a_lost_trainer_gives_up_what_waits_and_its_successor_draws_it_anew(given: Given, caplog: pytest.LogCaptureFixture) -> None:
    assembled = given.attempt(1)
    trainer: Any = assembled.trainer
    train, rebuild, at = trainer.train, trainer.rebuild, []

    def lost(update: Any, step: int) -> Any:
        if assembled.loop.state.step == 0 and not at and many_wait():
            at.append(time.monotonic())
            raise TrainerLostError("killed")
        return train(update, step)

    def rebuilt() -> None:
        at.append(time.monotonic())
        rollouts.MAY_END.set()
        rebuild()

    trainer.train, trainer.rebuild = lost, rebuilt
    assert assembled.loop.run(lambda: False) == "finished"
    assert at[1] - at[0] < SOON_S, "it waited for tools"
    assert assembled.loop._ahead.dropped > 8
    assembled.close()
    quiet(caplog)
    given.check()


def aborted(made: Any, policy: Any, count: int, ready: Callable[[], bool]) -> list[Episode]:
    """The episodes of a batch that is aborted from another thread once `ready`."""
    requests, found = [GenerationRequest(PROMPT, 77 + n, 17, 0, n, ROW) for n in range(count)], list[Episode]()
    drawing = threading.Thread(target=lambda: found.extend(asyncio.run(made.draw(policy, requests, PARAMS))))
    drawing.start()
    until = time.monotonic() + LIMIT_S
    while drawing.is_alive() and time.monotonic() < until:
        if ready():
            abort_episodes(made)
        time.sleep(0.02)
    drawing.join(LIMIT_S)
    assert len(found) == count, "it waits still"
    return found


def test_aborted_episodes_come_back_with_what_was_drawn_and_count_as_aborted(rollout: Any, waiting: None) -> None:
    tool = {"name": "multiply", "function": f"{ROLLOUTS}:minute", "description": "Waits.", "timeoutSeconds": 600}
    made, policy = rollout(tools=[tool | {"parameters": {"type": "object"}}]), Played([CALL.replace('"a": 6, "b": 7', "")] * 3)
    found = aborted(made, policy, 3, lambda: len(policy.asked) == 3)
    assert [(episode.finish, [turn.drawn for turn in episode.turns]) for episode in found] == [("abort", [False, True])] * 3
    assert all(described(episode).lost and not episode.failure for episode in found)


@pytest.mark.parametrize("function", ["slow", "swallows", "breaks"])
def test_whatever_a_function_does_when_it_is_aborted_its_episode_is(rollout: Any, function: str) -> None:
    policy = Played(["one"] * 9)
    (episode,) = aborted(rollout(function=function), policy, 1, lambda: len(policy.asked) > 0)
    assert (episode.finish, episode.failure) == ("abort", "")


def test_calls_that_were_given_up_are_not_stuck_before_their_time(waiting: None, monkeypatch: pytest.MonkeyPatch, rollout: Any) -> None:
    monkeypatch.setattr(tool_python, "STUCK_CALLS", 2)
    tool = {"name": "multiply", "function": f"{ROLLOUTS}:minute", "description": "Waits.", "timeoutSeconds": 600}
    made = rollout(tools=[tool | {"parameters": {"type": "object"}}])
    for _ in range(2):
        policy = Played([CALL.replace('"a": 6, "b": 7', "")] * 3)
        found = aborted(made, policy, 3, lambda policy=policy: len(policy.asked) == 3)
        assert [episode.finish for episode in found] == ["abort"] * 3
