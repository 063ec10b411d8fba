"""A checkpoint is written while the run goes on, is there at last when the next is due, and its failure is never lost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lprl_api.errors import StorageFullError, UserError
from lprl_workload.process.errors import RemoteError, TrainerLostError

Make = Callable[..., Any]


def never() -> bool:
    return False


def visible(run: Any) -> list[str]:
    return sorted(p.name for p in run.root.glob("step-??????"))


def watched(world: Any, run: Any) -> dict[str, list[str]]:
    """Note, at each call, which checkpoints can be seen."""
    seen: dict[str, list[str]] = {}
    note = world.note

    def look(what: str) -> None:
        seen[f"{len(world.journal)} {what}"] = visible(run)
        note(what)

    world.note = look
    return seen


def test_the_next_step_goes_on_while_a_checkpoint_is_written(bench: Make, new_world: Make) -> None:
    run, world = bench({"evaluation": None, "algorithm": {"steps": 4, "global_batch_size": None}}), new_world(writing=2)
    seen = watched(world, run)
    assert run.attempt(1, world)[0].run(never) == "finished"
    after = [(call.split(" ", 1)[1], folders) for call, folders in seen.items() if int(call.split()[0]) > world.journal.index("save")]
    assert after[:3] == [
        ("generate v2 t1", []),
        ("train 6", []),  # two looks found it unfinished
        ("push v3", ["step-000002"]),  # the third one published it, in the middle of the step
    ]
    assert visible(run) == ["step-000002", "step-000004"]


def test_a_checkpoint_that_takes_long_is_waited_for_before_the_next_one(bench: Make, new_world: Make) -> None:
    run, world = bench({"evaluation": None, "algorithm": {"steps": 4}}), new_world(writing=10**6)
    seen = watched(world, run)
    loop = run.attempt(1, world)[0]
    assert loop.run(never) == "finished"
    assert [folders for call, folders in seen.items() if call.endswith("save")] == [[], ["step-000002"]]
    assert visible(run) == ["step-000002", "step-000004"], "the last one before the end"
    assert loop._reporter.progress.checkpoint.step == 4


def test_a_suspended_run_has_its_checkpoint(bench: Make, new_world: Make) -> None:
    run, world = bench(), new_world(writing=10**6)
    loop = run.attempt(1, world)[0]
    assert loop.run(lambda: loop.state.step == 3) == "suspended"
    assert visible(run) == ["step-000002", "step-000003"]


def test_the_row_of_a_step_is_there_before_its_checkpoint(bench: Make, new_world: Make) -> None:
    run, world = bench(), new_world()
    note = world.note

    def check(what: str) -> None:
        for folder in visible(run):
            assert int(folder[5:]) in [row["step"] for row in run.series()]
        note(what)

    world.note = check
    run.attempt(1, world)[0].run(never)


def test_a_part_that_cannot_be_written_ends_the_run_and_says_why(bench: Make, new_world: Make) -> None:
    run, world = bench(), new_world(writing=1)
    world.faults["write"] = [StorageFullError("/v/step-000002.a1.tmp/trainer/a: no space left", "more")]
    with pytest.raises(StorageFullError, match="step-000002"):
        run.attempt(1, world)[0].run(never)
    assert visible(run) == [] and [p.name for p in run.root.glob("*.tmp")] == ["step-000002.a1.tmp"]
    assert run.attempt(2)[0].run(never) == "finished"


def test_a_run_that_ends_for_another_reason_finishes_the_checkpoint_it_writes(bench: Make, new_world: Make) -> None:
    run, world = bench(), new_world(writing=10**6)
    note = world.note

    def late(what: str) -> None:
        if "save" in world.journal and what.startswith("train"):
            raise ValueError("a bug")
        note(what)

    world.note = late
    with pytest.raises(ValueError, match="a bug"):
        run.attempt(1, world)[0].run(never)
    assert visible(run) == ["step-000002"]


@pytest.mark.parametrize("parts_are_there", [True, False])
def test_a_trainer_lost_while_a_checkpoint_is_written(bench: Make, new_world: Make, parts_are_there: bool) -> None:
    want = bench(name="whole")
    want.attempt()[0].run(never)
    run, world = bench(name="cut"), new_world(writing=10**6)
    note = world.note

    def late(what: str) -> None:
        if world.journal.count("save") == 1 and what.startswith("train") and "rebuild" not in world.journal:
            world.faults["write"] = [] if parts_are_there else [TrainerLostError("with the part it wrote")]
            world.faults["train"] = [TrainerLostError("killed")]
        note(what)

    world.note = late
    loop = run.attempt(1, world)[0]
    assert loop.run(never) == "finished"
    assert world.journal.count("rebuild") == 1 and loop._reporter.progress.trainer_restarts == 1
    assert loop.resumed_from == (2 if parts_are_there else None)
    assert run.series() == want.series()


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[0] ^= 1
    path.write_bytes(raw)


def test_damage_that_only_the_rank_sees_costs_one_checkpoint(bench: Make, new_world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What start-up samples is intact; the rank compares what it reads."""
    run = bench()
    run.attempt()[0].run(never)
    flip(run.root / "step-000007" / "trainer" / "w.json")
    monkeypatch.setattr("lprl_workload.checkpoint.store.verify", sizes_only)
    loop, world, trainer, _ = run.attempt(2)
    assert loop.run(never) == "finished" and loop.resumed_from == 6
    assert (run.root / "step-000007.damaged").is_dir() and trainer.w
    assert [call for call in world.journal if call == "load"] == ["load", "load"]


def test_a_checkpoint_that_cannot_be_read_by_chance_is_left_alone(bench: Make, new_world: Make) -> None:
    run = bench()
    run.attempt()[0].run(never)
    before, world = visible(run), new_world()
    world.faults["load"] = [RemoteError("load: rank 0: OSError: [Errno 5] Input/output error")]
    with pytest.raises(RemoteError, match="Errno 5"):
        run.attempt(2, world)[0].run(never)
    assert visible(run) == before and run.attempt(3)[0].run(never) == "finished"


def test_when_every_checkpoint_is_damaged_nothing_begins_at_step_0(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = bench()
    run.attempt()[0].run(never)
    for step in (6, 7):
        flip(run.root / f"step-{step:06d}" / "trainer" / "w.json")
    monkeypatch.setattr("lprl_workload.checkpoint.store.verify", sizes_only)
    with pytest.raises(UserError, match="no intact checkpoint, though one of step 7"):
        run.attempt(2, recorded_step=7)[0].run(never)


def test_a_damaged_checkpoint_of_another_run_is_refused(bench: Make) -> None:
    first = bench(name="first")
    first.attempt()[0].run(never)
    flip(first.root / "step-000006" / "trainer" / "w.json")
    with pytest.raises(UserError, match=r"spec.checkpoint.loadFrom: .*step-000006 is damaged"):
        bench(name="second").attempt(load_from=first.root / "step-000006")[0].run(never)
    assert (first.root / "step-000006").is_dir(), "it is not ours to move"


def sizes_only(folder: Path, how: str) -> Any:
    from lprl_workload.checkpoint.manifest import verify

    return verify(folder, "sizes")


def test_a_checkpoint_says_what_it_was_trained_from(bench: Make) -> None:
    run = bench({"algorithm": {"steps": 2}})
    run.attempt()[0].run(never)
    manifest = json.loads((run.root / "step-000002" / "manifest.json").read_text())
    assert manifest["source"].endswith("/v/p") and manifest["shape"]["architecture"] == "Qwen3ForCausalLM"
    assert "trainer/w.json" in [record["path"] for record in manifest["files"]]


@pytest.mark.parametrize(("every", "steps"), [(None, [7]), (4, [4, 7]), (2, [2, 4, 6, 7])])
def test_a_model_folder_is_made_when_due_and_at_the_end(bench: Make, every: int | None, steps: list[int]) -> None:
    run = bench({"checkpoint": {"keep": 9, "export_every_steps": every}})
    run.attempt()[0].run(never)
    assert visible(run) == [f"step-{step:06d}" for step in (2, 4, 6, 7)]
    assert [int(name[5:]) for name in visible(run) if (run.root / name / "model").is_dir()] == steps


def test_a_suspended_run_makes_no_model_folder(bench: Make) -> None:
    run = bench()
    loop = run.attempt()[0]
    assert loop.run(lambda: loop.state.step == 3) == "suspended"
    assert not (run.root / "step-000003" / "model").exists()


def test_the_files_of_a_last_checkpoint(bench: Make) -> None:
    run = bench({"algorithm": {"steps": 2}})
    run.attempt()[0].run(never)
    manifest = json.loads((run.root / "step-000002" / "manifest.json").read_text())
    assert [record["path"] for record in manifest["files"]] == ["model/model.safetensors", "state.json", "trainer/w.json"]
