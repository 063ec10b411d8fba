"""The stability guard in the loop: what each action does, and that it survives restarts and kills."""

import json
from typing import Any

import pytest
from tests.unit.lprl_workload.rl.attempts import KilledError, Make, never, whole

from lprl_workload.process.errors import EngineLostError


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
