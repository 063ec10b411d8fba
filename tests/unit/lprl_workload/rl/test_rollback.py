"""A rollback never costs more than it must: where nothing from before the drift is left, the run is corrected where it is."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.lprl_workload.rl.attempts import Make, never

from lprl_api.errors import UserError
from lprl_workload.checkpoint.manifest import verify


def settings(patience: int = 3, every: int = 2) -> dict[str, Any]:
    return {
        "algorithm": {"global_batch_size": None, "steps": 14},
        "evaluation": None,
        "stability": {"action": "rollback", "patience": patience},
        "checkpoint": {"every_steps": every, "keep": 2},
    }


def from_step(first: int) -> Callable[[int], float]:
    return lambda step: 3.0 if step >= first else 0.001


def folders(run: Any) -> list[int]:
    return sorted(int(path.name[5:]) for path in run.root.glob("step-??????"))


def spoil(run: Any, *steps: int) -> None:
    for step in steps:
        path = run.root / f"step-{step:06d}" / "trainer" / "w.json"
        path.write_bytes(path.read_bytes()[::-1])


def sizes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the driver see no damage that only a rank sees."""
    monkeypatch.setattr("lprl_workload.checkpoint.store.verify", lambda folder, how: verify(folder, "sizes"))


def test_a_run_suspended_in_a_drift_keeps_the_checkpoint_before_it(bench: Make, new_world: Make) -> None:
    run = bench(settings(every=5))
    loop, _, _, _ = run.attempt(1, new_world(k3=from_step(9)))
    assert loop.run(lambda: loop.state.step == 9) == "suspended" and folders(run) == [5, 9]
    loop, world, _, _ = run.attempt(2, new_world(k3=from_step(9)))
    seen: list[tuple[str, int, list[int]]] = []

    def look() -> bool:
        seen.append((loop.state.guard.state, loop.state.step, folders(run)))
        return False

    assert loop.run(look) == "finished" and "rebuild" not in world.journal
    assert next(found for found in seen if found[0] == "rolled-back") == ("rolled-back", 5, [5]), "not step 0, not untrained"


def test_without_a_checkpoint_from_before_the_drift_the_run_is_corrected_in_place(
    bench: Make, new_world: Make, caplog: pytest.LogCaptureFixture
) -> None:
    run = bench(settings(patience=1))
    loop, world, trainer, _ = run.attempt(1, new_world(k3=from_step(9)))

    def damages() -> bool:
        if loop.state.step == 8:
            loop._saving.finish()
            spoil(run, 6, 8)
        return False

    assert loop.run(damages) == "finished"
    assert "rebuild" not in world.journal and trainer.steps == 14, "nothing is trained again"
    assert trainer.corrected and loop.state.guard.state == "corrected"
    assert [row["step"] for row in run.series()] == list(range(1, 15))
    assert "no intact checkpoint of step 8 or before is left to go back to" in caplog.text


def test_damage_that_a_rank_finds_on_the_way_back_costs_what_was_not_saved(
    bench: Make, new_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes_only(monkeypatch)
    run = bench(settings())
    loop, world, trainer, _ = run.attempt(1, new_world(k3=from_step(9)))

    def damages() -> bool:
        if loop.state.step == 10 and "rebuild" not in world.journal:
            loop._saving.finish()
            spoil(run, 8)
        return False

    assert loop.run(damages) == "finished"
    assert loop.resumed_from == 10 and trainer.corrected and loop.state.guard.state == "corrected"
    assert [row["step"] for row in run.series()] == list(range(1, 15))


def test_when_all_are_damaged_the_run_ends_and_says_so(bench: Make, new_world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes_only(monkeypatch)
    run = bench(settings(patience=1))
    loop, _, _, _ = run.attempt(1, new_world(k3=from_step(9)))

    def damages() -> bool:
        if loop.state.step == 8:
            loop._saving.finish()
            spoil(run, 6, 8)
        return False

    with pytest.raises(UserError, match="no intact checkpoint, though one of step 8 was written"):
        loop.run(damages)


def test_a_drift_from_before_the_first_checkpoint_was_due_begins_anew(bench: Make, new_world: Make) -> None:
    run = bench(settings(patience=5))
    loop, world, trainer, _ = run.attempt(1, new_world(k3=from_step(1)))
    assert loop.run(lambda: loop.state.guard.state == "rolled-back") == "suspended"
    assert world.journal.count("rebuild") == 1 and folders(run) == [0] and (loop.state.step, trainer.steps) == (0, 0)
    loop, _, trainer, _ = run.attempt(2, new_world(k3=from_step(1)), recorded_step=0)
    assert loop.run(never) == "finished" and trainer.corrected
