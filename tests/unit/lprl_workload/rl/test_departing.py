"""The end of a loop that is asked to stop, and its beginning where a checkpoint is known to have been written."""

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from lprl_api.errors import UserError
from lprl_api.names import ExitCode, Reason
from lprl_api.wire.progress import Control
from lprl_workload.process.errors import TerminatedError, TrainerLostError
from lprl_workload.process.termination import ending_of

Make = Callable[..., Any]


def never() -> bool:
    return False


@pytest.mark.parametrize("where", ["train", "logprobs", "push", "save"])
def test_a_loop_that_is_asked_to_stop_does_not_rebuild_a_lost_trainer(bench: Make, new_world: Make, where: str) -> None:
    world, asked = new_world(), []
    note = world.note

    def late(what: str) -> None:
        if len(world.journal) == 20:
            asked.append(True)
            world.faults[where] = [TrainerLostError("its node went")]
        note(what)

    world.note = late
    loop, _, _, _ = bench().attempt(1, world)
    with pytest.raises(TerminatedError, match="its node went"):
        loop.run(lambda: bool(asked))
    assert "rebuild" not in world.journal and not loop.ready
    ending = ending_of(TerminatedError("x"), Reason.DRIVER_CRASHED)
    assert (ending.code, ending.reason, ending.unexpected) == (ExitCode.TERMINATED, Reason.HEAD_LOST, False)


def test_a_suspension_does_not_rebuild_a_lost_trainer_either(bench: Make, new_world: Make) -> None:
    world = new_world()
    loop, _, _, _ = bench().attempt(1, world)
    note = world.note

    def late(what: str) -> None:
        if len(world.journal) == 20:
            run = loop.run_config
            loop._reporter._control = Control(suspend=True, steps=run.algorithm.steps, stability=run.stability)
            world.faults["train"] = [TrainerLostError("its node went")]
        note(what)

    world.note = late
    assert loop.run(never) == "suspended"
    assert "rebuild" not in world.journal


def test_what_was_told_of_a_loss_is_not_told_after_the_recovery(bench: Make, new_world: Make) -> None:
    world = new_world()
    world.faults["train"] = [TrainerLostError("killed")]
    loop, _, _, _ = bench().attempt(1, world)
    told = []
    note = world.note

    def listen(what: str) -> None:
        told.append(loop._reporter.progress.message)
        note(what)

    world.note = listen
    assert loop.run(never) == "finished"
    assert any("killed" in message for message in told) and told[-1] == ""
    assert loop._reporter.progress.trainer_restarts == 1


def test_an_attempt_that_does_not_find_the_recorded_checkpoint_never_starts_at_0(bench: Make) -> None:
    run = bench()
    with pytest.raises(UserError, match=r"no intact checkpoint, though one of step 4 was written"):
        run.attempt(2, recorded_step=4)[0].run(never)
    assert not (run.root / "metrics.jsonl").exists(), "nothing was trained"


def test_one_that_finds_an_older_checkpoint_goes_on_from_it(bench: Make) -> None:
    run = bench()
    loop, _, _, _ = run.attempt(1)
    assert loop.run(never) == "finished"
    shutil.rmtree(run.root / "step-000007")
    loop, _, _, _ = run.attempt(2, recorded_step=7)
    assert loop.run(never) == "finished" and loop.resumed_from == 6


def test_an_attempt_whose_checkpoints_vanish_while_it_runs_does_not_start_at_0_either(bench: Make, new_world: Make) -> None:
    run, world = bench(), new_world()
    loop, _, _, _ = run.attempt(1, world)
    note = world.note

    def late(what: str) -> None:
        if world.journal.count("save") == 1 and what.startswith("train"):
            for folder in run.root.glob("step-*"):
                shutil.rmtree(folder)
            world.faults["train"] = [TrainerLostError("killed")]
        note(what)

    world.note = late
    with pytest.raises(UserError, match="no intact checkpoint"):
        loop.run(never)
