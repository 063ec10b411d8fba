"""Evaluations beside training, with a real trainer and real engines of a tiny model: under the right step and weights, each once."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lprl_api.wire.progress import Control, Progress
from lprl_fixtures.runs import merged, run_config, write_inputs
from lprl_workload.config import ResolvedPaths
from lprl_workload.launch.build import assemble, local_groups
from lprl_workload.metrics.progress import Reporter
from lprl_workload.process.errors import EngineLostError, TrainerLostError

LIMIT_S = 180.0
STEPS = 6
CHANGES: dict[str, Any] = {
    "algorithm": {"steps": STEPS, "correction": {"type": "tis"}},
    "ranks": {"placement": "split", "nodes": 2, "rollout_nodes": 1, "engines": 2},
    "evaluation": {"every_steps": 2, "at_start": True},
    "checkpoint": {"every_steps": 2},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    found = tmp_path_factory.mktemp("run")
    write_inputs(found, train=32, heldout=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LPRL_VOLUMES_ROOT", str(found))
        yield found


class Evaluated:
    """One attempt at a run; what is drawn by engines that are aside waits for `gate`."""

    def __init__(self, root: Path, name: str, changes: dict[str, Any], attempt: int = 1) -> None:
        run = run_config(root, merged(merged(CHANGES, {"checkpoint": {"directory": {"path": f"runs/{name}"}}}), changes))
        first = Progress(attempt=attempt, sequence=0, phase="starting", step=0, steps=STEPS)
        self.reporter = Reporter(None, first, 60.0, Control(steps=STEPS, stability=run.stability))
        self.made = assemble(run, ResolvedPaths.of(run), attempt, self.reporter, local_groups)
        self.loop, self.folder = self.made.loop, root / "all" / "runs" / name
        self.rollout: Any = self.made.rollout
        self.trainer: Any = self.made.trainer
        self.gate, self.waits, self.aborted = threading.Event(), threading.Event(), threading.Event()
        self.seen: list[tuple[str, set[int]]] = []
        """Of every evaluation beside training: its thread, and the versions engines serve when it is let go."""
        generate, abort = self.rollout.generate, self.rollout.abort

        def gated(requests: Any, params: Any, keeper: Any, aside: bool = False) -> Any:
            if aside:
                self.waits.set()
                while not self.gate.wait(0.02) and not self.aborted.is_set():
                    pass
                self.seen.append((threading.current_thread().name, {engine.weight_version for engine in self.rollout.engines}))
            return generate(requests, params, keeper, aside)

        def aborts() -> None:
            self.aborted.set()
            abort()

        self.rollout.generate, self.rollout.abort = gated, aborts

    def before_training(self, step: int, action: Callable[[], None]) -> None:
        """Do something once, before step `step` is trained."""
        train, done = self.trainer.train, []

        def noted(update: Any, number: int) -> Any:
            if self.loop.state.step == step - 1 and not done:
                done.append(step)
                action()
            return train(update, number)

        self.trainer.train = noted

    def hold(self) -> None:
        """Let the next evaluation wait, once the one before is done."""
        self.loop._evaluations.settle()
        self.gate.clear()
        self.waits.clear()

    def let_go_when_waited_for(self) -> None:
        settle = self.loop._evaluations.settle

        def waits() -> None:
            self.gate.set()
            settle()

        self.loop._evaluations.settle = waits  # type: ignore[method-assign]

    def run(self, stop: Callable[[], bool] = lambda: False) -> "Evaluated":
        try:
            self.outcome = self.loop.run(stop)
        finally:
            self.made.close()
            self.reporter.close()
        return self

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        file = self.folder / "evaluations.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def rows(self) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        changing = ("attempt", "time", "weight_version", "tokens_per_second")
        return [{k: v for k, v in row.items() if k not in changing and not k.endswith("_seconds")} for row in rows]


def unversioned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Recoveries add to the count of pushes."""
    return [{k: v for k, v in row.items() if k != "weight_version"} for row in rows]


@pytest.fixture(scope="module")
def plain(root: Path) -> Evaluated:
    """The run whose training waits for its evaluations."""
    found = Evaluated(root, "plain", {}).run()
    assert [row["step"] for row in found.evaluations] == [0, 2, 4, 6] and not found.seen
    return found


ASIDE = {"evaluation": {"engines": 1}}


def test_training_goes_on_beside_an_evaluation_which_is_of_the_weights_of_its_step(root: Path, plain: Evaluated) -> None:
    """Two pushes pass the engine by. Nothing differs from a run that waits: not a reward, nor the step and weights it is reported with."""
    found = Evaluated(root, "beside", merged(ASIDE, {"checkpoint": {"every_steps": STEPS}, "evaluation": {"at_start": False}}))

    def let_go() -> None:
        assert found.waits.wait(LIMIT_S)
        found.gate.set()

    found.before_training(4, let_go)
    found.run()
    assert found.evaluations == plain.evaluations[1:] and found.rows == plain.rows
    threads, versions = zip(*found.seen, strict=True)
    assert threads == ("lprl-evaluation-2", "lprl-evaluation-4"), "the last one is made by all"
    made = {row["step"]: row["weight_version"] for row in found.evaluations}
    assert versions[0] == {made[2], made[2] + 1}, "the engine kept its version while the other was pushed to"
    told = found.reporter.progress.evaluation
    assert told is not None and (told.step, told.weight_version) == (6, made[6])


def test_a_checkpoint_waits_for_the_evaluation_of_an_earlier_step_and_not_for_that_of_its_own(root: Path, plain: Evaluated) -> None:
    found = Evaluated(root, "waits", merged(ASIDE, {"checkpoint": {"every_steps": 1}, "evaluation": {"at_start": False}}))
    begin, known = found.trainer.begin_save, []

    def noted(directory: Path) -> None:
        known.append((found.loop.state.step, [row["step"] for row in found.evaluations]))
        begin(directory)

    found.trainer.begin_save = noted
    found.let_go_when_waited_for()  # and not before: a checkpoint that waits for that of its own step waits for ever
    found.run()
    assert known == [(1, []), (2, []), (3, [2]), (4, [2]), (5, [2, 4]), (6, [2, 4, 6])]
    assert found.evaluations == plain.evaluations[1:]


class KilledError(BaseException):
    """Stands for kill -9: nothing in the loop may catch it."""


@pytest.mark.parametrize("every", [2, 3], ids=["of-a-checkpoints-step", "of-a-later-step"])
def test_a_run_killed_in_the_middle_of_an_evaluation_makes_it_again_once(root: Path, plain: Evaluated, every: int) -> None:
    changes = merged(ASIDE, {"evaluation": {"every_steps": every}})
    found = Evaluated(root, f"killed-{every}", changes)

    def kill() -> None:
        assert found.waits.wait(LIMIT_S)
        found.loop._saving.finish()
        raise KilledError

    found.gate.set()  # that of step 0
    found.before_training(2, found.hold)
    found.before_training(4, kill)
    with pytest.raises(KilledError):
        found.run()
    assert [row["step"] for row in found.evaluations] == [0]
    again = Evaluated(root, f"killed-{every}", changes, attempt=2)
    again.gate.set()
    again.run()
    assert [row["step"] for row in again.evaluations] == list(range(0, STEPS + 1, every))
    wanted = {row["step"]: row for row in unversioned(plain.evaluations)}
    assert all(row == wanted.get(row["step"], row) for row in unversioned(again.evaluations)) and again.rows == plain.rows


def test_a_suspension_gives_an_evaluation_up_that_its_checkpoint_can_make_again(root: Path, plain: Evaluated) -> None:
    changes = merged(ASIDE, {"evaluation": {"at_start": False}})
    found = Evaluated(root, "suspended", changes)
    found.run(lambda: found.loop.state.step == 2 and found.waits.wait(LIMIT_S))
    assert found.outcome == "suspended" and not found.evaluations
    again = Evaluated(root, "suspended", changes, attempt=2)
    again.gate.set()
    again.run()
    assert unversioned(again.evaluations) == unversioned(plain.evaluations[1:]) and again.rows == plain.rows


def test_a_lost_trainer_gives_it_up_and_makes_it_again_from_the_checkpoint(root: Path, plain: Evaluated) -> None:
    found = Evaluated(root, "trainer", merged(ASIDE, {"evaluation": {"at_start": False}}))

    def lost() -> None:
        assert found.waits.wait(LIMIT_S)
        found.gate.set()
        raise TrainerLostError("killed")

    found.before_training(3, lost)
    found.run()
    assert unversioned(found.evaluations) == unversioned(plain.evaluations[1:]) and found.rows == plain.rows


def drifting(action: str, **evaluation: Any) -> dict[str, Any]:
    """A run whose guard acts after step 3."""
    stability = {"absolute_limit": 1e-9, "relative_limit": None, "patience": 3, "action": action}
    changes = {"stability": stability, "precision": {"rollout": "fp8"}, "checkpoint": {"every_steps": STEPS}}
    return merged(ASIDE, merged(changes, {"evaluation": evaluation}))


def test_a_rollback_gives_it_up_and_the_steps_that_are_done_again_make_it_again(root: Path) -> None:
    found = Evaluated(root, "back", drifting("rollback"))
    found.gate.set()  # that of step 0
    found.before_training(2, found.hold)
    found.before_training(3, lambda: found.waits.wait(LIMIT_S) and None)
    found.run()
    assert found.loop.state.guard.state == "rolled-back" and found.aborted.is_set()
    assert [row["step"] for row in found.evaluations] == [0, 2, 4, 6]


def test_a_fallback_to_bf16_waits_for_the_evaluation_of_what_was_served_before(root: Path) -> None:
    found = Evaluated(root, "bf16", drifting("fallback-bf16", at_start=False))
    found.let_go_when_waited_for()
    found.run()
    assert [(row["step"], row["served"].split("-")[0]) for row in found.evaluations] == [(2, "fp8"), (4, "bf16"), (6, "bf16")]


def dies(engine: Any) -> None:
    """Have an engine be dead for every request from now on."""

    async def gone(request: Any) -> Any:
        raise EngineLostError(1, "killed")
        yield

    engine.generate = gone


def test_when_no_engine_is_left_that_serves_its_weights_it_is_made_with_the_next(root: Path, plain: Evaluated) -> None:
    found = Evaluated(root, "engine", merged(ASIDE, {"evaluation": {"at_start": False}, "checkpoint": {"every_steps": STEPS}}))

    def kill() -> None:
        assert found.waits.wait(LIMIT_S)
        dies(found.rollout.engines[1])
        found.gate.set()
        flight = found.loop._evaluations._flight
        assert flight is not None and flight.made.exception(LIMIT_S) is not None

    found.before_training(3, kill)
    found.run()
    assert [row["step"] for row in found.evaluations] == [3, 4, 6] and found.rows == plain.rows
    assert unversioned(found.evaluations[1:]) == unversioned(plain.evaluations[2:])
    assert found.loop._serving.budget.total == 1 and found.rollout.living == 2


def test_of_several_engines_that_are_aside_the_others_draw_what_a_lost_one_had(root: Path, plain: Evaluated) -> None:
    changes = merged(ASIDE, {"evaluation": {"at_start": False, "engines": 2}, "ranks": {"engines": 3}})
    found = Evaluated(root, "several", changes)

    def kill() -> None:
        assert found.waits.wait(LIMIT_S)
        dies(found.rollout.engines[1])
        found.gate.set()

    found.before_training(3, kill)
    found.run()
    assert unversioned(found.evaluations) == unversioned(plain.evaluations[1:]) and found.rows == plain.rows
    assert found.loop._serving.budget.total == 1 and found.rollout.living == 3


def test_a_run_that_generates_ahead_evaluates_beside_it_and_no_sample_is_older_than_allowed(root: Path) -> None:
    found = Evaluated(root, "ahead", merged(ASIDE, {"algorithm": {"max_staleness": 2}, "checkpoint": {"every_steps": STEPS}}))

    def let_go() -> None:
        assert found.waits.wait(LIMIT_S)
        found.gate.set()

    found.before_training(2, let_go)
    found.run()
    assert [row["step"] for row in found.evaluations] == [0, 2, 4, 6]
    assert [row["prompts_from"] for row in found.rows] == [4 * step for step in range(STEPS)]
    assert all(row["staleness_max"] <= 2 for row in found.rows)
    made = found.loop._serving.made
    assert all(made[row["weight_version"]] == row["step"] for row in found.evaluations)
    assert found.seen[0][0] == "lprl-evaluation-0" and min(found.seen[0][1]) == found.evaluations[0]["weight_version"]
