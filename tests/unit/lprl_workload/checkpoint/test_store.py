"""A checkpoint is complete or absent, whatever happens while it is written; late attempts are kept out."""

import json
from pathlib import Path

import pytest

from lprl_api.errors import UserError
from lprl_workload.checkpoint.manifest import Damage, verify
from lprl_workload.checkpoint.store import CheckpointStore, intact_checkpoint
from lprl_workload.process.errors import FencedError


def write_text(text: str):  # type: ignore[no-untyped-def]
    def write(folder: Path) -> None:
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_text(text)
        (folder / "state.json").write_text("{}")

    return write


def store_at(root: Path, attempt: int = 1, keep: int = 2) -> CheckpointStore:
    store = CheckpointStore(root, attempt, keep)
    store.take_over()
    return store


def content(store: CheckpointStore) -> str:
    found = store.newest()
    assert found is not None
    return (found[0] / "model" / "weights").read_text()


def test_newest_is_the_last_one_saved_and_old_ones_go(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    assert store.newest() is None
    for step in (2, 4, 6):
        manifest = store.save(step, write_text(f"w{step}"))
        assert [record.path for record in manifest.files] == ["model/weights", "state.json"]
    assert store.steps() == [4, 6]
    assert content(store) == "w6"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["FENCE", "step-000004", "step-000006"]


def test_a_writer_that_dies_leaves_nothing_that_is_used(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    store.save(2, write_text("w2"))

    def dies(folder: Path) -> None:
        (folder / "half").write_text("h")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.save(4, dies)
    assert [p.name for p in tmp_path.glob("*.tmp")] == ["step-000004.a1.tmp"]
    again = store_at(tmp_path, attempt=2)
    assert content(again) == "w2"
    assert list(tmp_path.glob("*.tmp")) == []


@pytest.mark.parametrize("damage", ["flipped", "cut", "removed", "manifest", "no-manifest", "escape"])
def test_a_damaged_checkpoint_is_kept_aside_and_the_one_before_is_used(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_at(tmp_path)
    store.save(2, write_text("w2"))
    store.save(4, write_text("w4"))
    folder = store.folder(4)
    weights, manifest = folder / "model" / "weights", folder / "manifest.json"
    match damage:
        case "flipped":
            weights.write_text("x4")
        case "cut":
            weights.write_text("w")
        case "removed":
            weights.unlink()
        case "manifest":
            manifest.write_text(manifest.read_text()[:-5])
        case "no-manifest":
            manifest.unlink()
        case "escape":
            document = json.loads(manifest.read_text())
            document["files"][0]["path"] = "../FENCE"
            manifest.write_text(json.dumps(document))
    assert isinstance(verify(folder), Damage)
    assert content(store) == "w2"
    assert (tmp_path / "step-000004.damaged").is_dir(), "never deleted silently"
    assert "step-000004 is damaged" in caplog.text
    store.save(4, write_text("again"))
    assert content(store) == "again"


def test_an_older_attempt_is_refused(tmp_path: Path) -> None:
    old = store_at(tmp_path, attempt=1)
    old.save(2, write_text("old"))
    new = store_at(tmp_path, attempt=2)
    with pytest.raises(FencedError, match="attempt 2 owns this folder, attempt 1 must not write"):
        old.save(4, write_text("late"))
    with pytest.raises(FencedError):
        old.take_over()
    with pytest.raises(FencedError):
        old.drop_after(0)
    assert content(new) == "old"


def test_an_attempt_fenced_while_it_writes_publishes_nothing(tmp_path: Path) -> None:
    old = store_at(tmp_path, attempt=1)

    def write(folder: Path) -> None:
        write_text("late")(folder)
        (tmp_path / "FENCE").write_text("2\n")

    with pytest.raises(FencedError):
        old.save(2, write)
    assert store_at(tmp_path, attempt=2).newest() is None


def test_rollback_replaces_one_and_drops_the_later_ones(tmp_path: Path) -> None:
    store = store_at(tmp_path, keep=3)
    for step in (2, 4, 6):
        store.save(step, write_text(f"w{step}"))
    store.save(4, write_text("corrected"))
    store.drop_after(4)
    assert store.steps() == [2, 4]
    assert content(store) == "corrected"
    found = store.newest(at_most=3)
    assert found is not None and found[1].step == 2


@pytest.mark.parametrize("published", [True, False])
def test_a_replacement_cut_between_its_renames_is_finished(tmp_path: Path, published: bool) -> None:
    store = store_at(tmp_path)
    store.save(2, write_text("before"))
    store.folder(2).rename(tmp_path / "step-000002.old")
    if published:
        store.save(2, write_text("after"))
        store.folder(2).rename(tmp_path / "keep")
        (tmp_path / "keep").rename(store.folder(2))
    assert content(store_at(tmp_path, attempt=2)) == ("after" if published else "before")
    assert list(tmp_path.glob("*.old")) == []


def test_load_from_takes_a_run_or_a_step_and_changes_nothing(tmp_path: Path) -> None:
    store = store_at(tmp_path, keep=5)
    store.save(2, write_text("w2"))
    store.save(10, write_text("w10"))
    assert intact_checkpoint(tmp_path).name == "step-000010"
    assert intact_checkpoint(tmp_path / "step-000002").name == "step-000002"
    (tmp_path / "step-000010" / "state.json").write_text("[]")
    before = sorted(p.name for p in tmp_path.iterdir())
    assert intact_checkpoint(tmp_path).name == "step-000002"
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    with pytest.raises(UserError, match=r"spec.checkpoint.loadFrom: no intact checkpoint.*no step folder"):
        intact_checkpoint(tmp_path / "nothing")
