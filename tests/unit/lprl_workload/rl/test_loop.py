"""The loop's order, exact resume, recovery and guard actions, over arithmetic stand-ins for trainer and engines."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from lprl_api.spec.topology import Stability
from lprl_api.wire.progress import Control
from lprl_workload.process.errors import EngineLostError, RecoveryExhaustedError, TrainerLostError

Make = Callable[..., Any]


def never() -> bool:
    return False


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


def whole(make: Make, changes: dict[str, Any] | None = None, **attempt: Any) -> tuple[Any, float]:
    run = make(changes, "whole")
    loop, _, trainer, _ = run.attempt(**attempt)
    assert loop.run(never) == "finished"
    return run, trainer.w


class KilledError(BaseException):
    """Stands for kill -9: nothing in the loop may catch it."""


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


def drifting(step: int) -> float:
    """Mismatch over the limit from optimizer step 9 (rollout step 5) on."""
    return 3.0 if step >= 9 else 0.001


GUARDED = {"algorithm": {"global_batch_size": None, "steps": 12}, "evaluation": None}


def guarded(action: str, **stability: Any) -> dict[str, Any]:
    return GUARDED | {"stability": {"action": action} | stability}


def test_warn_changes_nothing(bench: Make, new_world: Make) -> None:
    world = new_world(k3=drifting)
    run = bench(guarded("warn"))
    loop, _, trainer, _ = run.attempt(1, world)
    loop.run(never)
    assert loop.state.guard.state == "drifting" and loop.state.guard.since_step == 9
    assert trainer.w == whole(bench, GUARDED, world=new_world())[1]


def test_correct_switches_on_and_survives_a_restart(bench: Make, new_world: Make) -> None:
    run = bench(guarded("correct"))
    loop, world, trainer, _ = run.attempt(1, new_world(k3=drifting))
    loop.run(lambda: loop.state.step == 10)
    assert trainer.corrected and world.journal.count("correction True") == 1
    loop, world, trainer, _ = run.attempt(2, new_world(k3=drifting))
    loop.run(never)
    assert trainer.corrected and loop.state.guard.state == "corrected"


def test_hold_pauses_updates_until_the_mismatch_is_back(bench: Make, new_world: Make) -> None:
    world = new_world()
    calm_after: list[int] = []

    def k3(step: int) -> float:
        if step < 9:
            return 0.001
        calm_after.append(step)
        return 3.0 if len(calm_after) < 4 else 0.0

    world.k3 = k3
    run = bench(guarded("hold"))
    loop, _, trainer, _ = run.attempt(1, world)
    loop.run(never)
    rows = run.series()
    assert [row["step"] for row in rows if row["loss"] is None] == [10, 11, 12]
    assert trainer.steps == 9
    assert loop.state.guard.state == "stable", "released at the step whose mismatch is small"
    assert [call for call in world.journal if call.startswith("push")][-1] == "push v12", "resynchronised while held"


def test_rollback_goes_back_before_the_drift_with_correction(bench: Make, new_world: Make) -> None:
    run = bench(guarded("rollback"))
    loop, world, trainer, _ = run.attempt(1, new_world(k3=drifting))
    assert loop.run(never) == "finished"
    assert trainer.corrected and loop.state.guard.state == "rolled-back"
    assert world.journal.count("load") == 1
    rows = run.series()
    assert [row["step"] for row in rows] == list(range(1, 13)), "every step once"
    plain = whole(bench, GUARDED, world=new_world(k3=drifting))[0].series()
    assert rows[:8] == plain[:8] and rows[8:] != plain[8:]


@pytest.mark.parametrize("moment", range(28, 50, 2))
def test_rollback_killed_anywhere_ends_the_same(bench: Make, new_world: Make, moment: int) -> None:
    want = bench(guarded("rollback"), "want")
    loop, _, want_trainer, _ = want.attempt(1, new_world(k3=drifting))
    loop.run(never)
    run = bench(guarded("rollback"), "cut")
    world = new_world(k3=drifting)
    note = world.note

    def counted(what: str) -> None:
        note(what)
        if len(world.journal) > moment:
            raise KilledError

    world.note = counted
    loop, _, _, _ = run.attempt(1, world)
    with pytest.raises(KilledError):
        loop.run(never)
    loop, _, trainer, _ = run.attempt(2, new_world(k3=drifting))
    loop.run(never)
    assert run.series() == want.series() and trainer.w == want_trainer.w


def test_fallback_serves_bf16_from_now_on_and_after_a_restart(bench: Make, new_world: Make) -> None:
    run = bench(guarded("fallback-bf16"))
    loop, world, _, engines = run.attempt(1, new_world(k3=drifting))
    loop.run(lambda: loop.state.step == 10)
    assert engines.format.kind == "bf16" and loop.state.effective_rollout == "bf16"
    at = world.journal.index("format bf16")
    assert world.journal[at + 1].startswith("push"), "pushed again before anything generates"
    loop, world, _, engines = run.attempt(2, new_world(k3=drifting))
    loop.run(never)
    assert engines.format.kind == "bf16"
    assert json.loads((run.root / "step-000012" / "state.json").read_text())["effective_rollout"] == "bf16"


def test_an_engine_lost_while_it_changes_format_is_replaced_in_the_new_one(bench: Make, new_world: Make) -> None:
    world = new_world(k3=drifting)
    world.faults["format"] = [EngineLostError(0, "killed")]
    world.faults["push"] = []
    run = bench(guarded("fallback-bf16"))
    loop, _, _, engines = run.attempt(1, world)
    assert loop.run(never) == "finished"
    assert engines.format.kind == "bf16" and loop.state.effective_rollout == "bf16"


def test_progress_tells_the_state(bench: Make, new_world: Make) -> None:
    loop, _, _, _ = bench().attempt(1, new_world())
    loop.run(never)
    found = loop._reporter.progress
    assert (found.step, found.steps, found.weight_version) == (7, 7, 7)
    assert found.checkpoint is not None and (found.checkpoint.step, found.checkpoint.path) == (7, "v:p/step-000007")
    assert found.evaluation is not None and found.evaluation.step == 7
    assert found.mismatch_k3 is not None and found.tokens_per_second and found.step_seconds
