"""The loop's order, exact resume, recovery and guard actions, over arithmetic stand-ins for trainer and engines."""

from typing import Any

import pytest
from tests.unit.lprl_workload.rl.attempts import KilledError, Make, never, whole

from lprl_api.spec.topology import Stability
from lprl_api.wire.progress import Control
from lprl_workload.process.errors import EngineLostError, RecoveryExhaustedError, TrainerLostError


def test_order_of_the_first_steps(bench: Make) -> None:
    run = bench({"algorithm": {"steps": 2}})
    loop, world, _, _ = run.attempt()
    assert loop.run(never) == "finished"
    assert world.journal == [
        "correction False",
        "push v0",
        "generate v0 t0",
        "generate v0 t1",
        "logprobs",
        "train 3",
        "train 3",
        "push v1",
        "generate v1 t1",
        "logprobs",
        "train 3",
        "train 3",
        "push v2",
        "generate v2 t0",
        "save",
    ]


@pytest.mark.parametrize(
    ("algorithm", "calls"),
    [
        pytest.param({"global_batch_size": None}, ["generate", "train", "push"], id="one-update-needs-no-old-log-probabilities"),
        pytest.param({"global_batch_size": 2}, ["generate", "logprobs", "train", "train", "train", "push"], id="several-updates-do"),
        pytest.param(
            {"global_batch_size": None, "kl": {"coefficient": 0.1}}, ["generate", "reference", "train", "push"], id="kl-in-the-loss"
        ),
        pytest.param(
            {"global_batch_size": None, "kl": {"measure": True}}, ["generate", "reference", "train", "push"], id="kl-measured-only"
        ),
        pytest.param(
            {"global_batch_size": None, "kl": {"coefficient": 0.1, "placement": "reward"}},
            ["generate", "reference", "logprobs", "moments", "train", "push"],
            id="kl-in-the-reward",
        ),
    ],
)
def test_what_a_step_asks_of_the_trainer(bench: Make, algorithm: dict[str, Any], calls: list[str]) -> None:
    run = bench({"algorithm": algorithm | {"steps": 1}, "evaluation": None})
    loop, world, _, _ = run.attempt()
    loop.run(never)
    assert [call.split()[0] for call in world.journal[2:-1]] == calls


@pytest.mark.parametrize("moment", range(1, 60, 3))
def test_killed_anywhere_and_resumed_equals_uninterrupted(bench: Make, new_world: Make, moment: int) -> None:
    want, want_w = whole(bench)
    run = bench(name="cut")
    attempts, trainer = 0, None
    while True:
        attempts += 1
        world = new_world()
        if attempts == 1:
            note = world.note

            def counted(what: str, note: Any = note, world: Any = world) -> None:
                note(what)
                if len(world.journal) > moment:
                    raise KilledError

            world.note = counted
        loop, _, trainer, _ = run.attempt(attempts, world)
        try:
            assert loop.run(never) == "finished"
            break
        except KilledError:
            continue
    assert run.series() == want.series()
    assert run.evaluations() == want.evaluations()
    assert trainer.w == want_w
    newest = sorted(p for p in run.root.glob("step-*") if p.is_dir())[-1]
    assert newest.name == "step-000007"
    for name in ("trainer/w.json", "model/model.safetensors"):
        assert (newest / name).read_bytes() == (want.root / newest.name / name).read_bytes()


def test_suspend_checkpoints_and_the_next_attempt_goes_on(bench: Make) -> None:
    want, _ = whole(bench)
    run = bench(name="cut")
    loop, world, _, _ = run.attempt(1)
    assert loop.run(lambda: loop.state.step == 3) == "suspended"
    assert world.journal[-1] == "save"
    run.control = Control(suspend=True, steps=7, stability=Stability())
    loop, world, _, _ = run.attempt(2)
    assert loop.run(never) == "suspended"
    assert loop.state.step == 3 and loop.resumed_from == 3
    assert "save" not in world.journal, "nothing new to save"
    run.control = None
    loop, _, _, _ = run.attempt(3)
    assert loop.run(never) == "finished"
    assert run.series() == want.series()


def test_control_may_raise_the_steps(bench: Make) -> None:
    run = bench()
    run.control = Control(steps=9, stability=Stability())
    loop, _, _, _ = run.attempt()
    loop.run(never)
    assert loop.state.step == 9 and run.evaluations()[-1]["step"] == 9


@pytest.mark.parametrize("restarted", [False, True])
def test_learning_rates_follow_raised_steps_at_once_with_and_without_a_restart(bench: Make, restarted: bool) -> None:
    run = bench()
    loop, _, _, _ = run.attempt()

    def raised() -> bool:
        if loop.state.step == 3:
            loop._reporter._control = Control(steps=9, stability=Stability())
        return restarted and loop.state.step == 4

    assert loop.run(raised) == ("suspended" if restarted else "finished")
    if restarted:
        run.run = run.run.model_copy(update={"algorithm": run.run.algorithm.model_copy(update={"steps": 9})})
        assert run.attempt(2)[0].run(never) == "finished"
    assert [row["learning_rate"] for row in run.series()] == [1 / 7] * 3 + [1 / 9] * 6


def test_a_finished_run_resumed_does_nothing_again(bench: Make) -> None:
    run, _ = whole(bench)
    loop, world, _, _ = run.attempt(2)
    assert loop.run(never) == "finished"
    assert [call.split()[0] for call in world.journal] == ["load", "correction", "push"]


@pytest.mark.parametrize("where", ["generate", "fetch", "push"])
def test_a_lost_engine_is_replaced_and_changes_nothing(bench: Make, new_world: Make, where: str) -> None:
    want, want_w = whole(bench)
    run = bench(name="cut")
    world = new_world()
    world.faults[where] = [EngineLostError(0, "killed")]
    loop, _, trainer, _ = run.attempt(1, world)
    loop.run(never)
    assert world.journal.count("replace") == 1
    assert run.series() == want.series() and trainer.w == want_w


@pytest.mark.parametrize("where", ["train", "logprobs", "push", "save", "load"])
def test_a_lost_trainer_is_rebuilt_from_the_last_checkpoint_and_changes_nothing(bench: Make, new_world: Make, where: str) -> None:
    want, want_w = whole(bench)
    run = bench(name="cut")
    world = new_world()
    note = world.note

    def late(what: str) -> None:
        # The first calls go well: a checkpoint exists when the rank is lost.
        if where == "load" and len(world.journal) == 30:
            world.faults["train"] = [TrainerLostError("killed")]
            world.faults["load"] = [TrainerLostError("killed again")]
        if where != "load" and len(world.journal) == 25:
            world.faults[where] = [TrainerLostError("killed")]
        note(what)

    world.note = late
    loop, _, trainer, _ = run.attempt(1, world)
    assert loop.run(never) == "finished"
    assert world.journal.count("rebuild") == (2 if where == "load" else 1)
    assert run.series() == want.series() and trainer.w == want_w
    assert run.evaluations() == want.evaluations()


def test_recovery_that_is_itself_hit_is_tried_again(bench: Make, new_world: Make) -> None:
    """The replacement dies too: another engine, another rank."""
    want, want_w = whole(bench)
    run = bench(name="cut")
    world = new_world()
    world.faults = {
        "generate": [EngineLostError(0, "killed")],
        "replace": [EngineLostError(0, "and its replacement")],
        "train": [TrainerLostError("killed")],
        "rebuild": [TrainerLostError("and its replacement")],
    }
    loop, _, trainer, _ = run.attempt(1, world)
    assert loop.run(never) == "finished"
    assert (world.journal.count("replace"), world.journal.count("rebuild")) == (2, 2)
    assert run.series() == want.series() and trainer.w == want_w


def test_recovery_has_a_budget(bench: Make, new_world: Make) -> None:
    world = new_world()
    world.faults["train"] = [TrainerLostError("killed")] * 9
    loop, _, _, _ = bench().attempt(1, world)
    with pytest.raises(RecoveryExhaustedError, match="trainer ranks lost 4 times since step 0"):
        loop.run(never)
    world = new_world()
    world.faults["generate"] = [EngineLostError(0, "killed")] * 9
    loop, _, _, _ = bench(name="other").attempt(1, world)
    with pytest.raises(RecoveryExhaustedError, match="engines lost 4 times"):
        loop.run(never)


def test_the_budget_refills_as_steps_advance(bench: Make, new_world: Make) -> None:
    world = new_world()
    note = world.note

    def every_step(what: str) -> None:
        if what.startswith("generate") and what.endswith("t1") and world.journal.count(what) == 0:
            world.faults["generate"] = [EngineLostError(0, "killed")]
        note(what)

    world.note = every_step
    loop, _, _, _ = bench().attempt(1, world)
    assert loop.run(never) == "finished"
    assert world.journal.count("replace") == 7
