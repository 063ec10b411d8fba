"""A checkpoint is complete or absent, whatever happens while it is written; late attempts are kept out."""

import errno
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from lprl_api.errors import UserError
from lprl_workload.checkpoint.manifest import Damage, Manifest, sampled, verify
from lprl_workload.checkpoint.store import CheckpointStore, intact_checkpoint
from lprl_workload.io import parts
from lprl_workload.io.parts import record_of
from lprl_workload.process.errors import FencedError


def write_text(text: str):  # type: ignore[no-untyped-def]
    def write(folder: Path) -> None:
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_text(text)
        (folder / "state.json").write_text("{}")

    return write


def save(store: CheckpointStore, step: int, write: Any, drift: int | None = None) -> Manifest:
    """Write a checkpoint as several writers do: each says what it wrote."""
    folder = store.begin(step)
    write(folder)
    written = sorted(path for path in folder.rglob("*") if path.is_file())
    return store.publish(step, [record_of(path, path.relative_to(folder).as_posix()) for path in written], drift=drift)


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
        manifest = save(store, step, write_text(f"w{step}"))
        assert [record.path for record in manifest.files] == ["model/weights", "state.json"]
    assert store.steps() == [4, 6]
    assert content(store) == "w6"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["FENCE", "step-000004", "step-000006"]


def test_a_writer_that_dies_leaves_nothing_that_is_used(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    save(store, 2, write_text("w2"))

    def dies(folder: Path) -> None:
        (folder / "half").write_text("h")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(store, 4, dies)
    assert [p.name for p in tmp_path.glob("*.tmp")] == ["step-000004.a1.tmp"]
    again = store_at(tmp_path, attempt=2)
    assert content(again) == "w2"
    assert list(tmp_path.glob("*.tmp")) == []


@pytest.mark.parametrize("damage", ["flipped", "cut", "removed", "manifest", "no-manifest", "escape"])
def test_a_damaged_checkpoint_is_kept_aside_and_the_one_before_is_used(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_at(tmp_path)
    save(store, 2, write_text("w2"))
    save(store, 4, write_text("w4"))
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
    save(store, 4, write_text("again"))
    assert content(store) == "again"


@pytest.mark.parametrize(("method", "name"), [("read_bytes", "manifest.json"), ("stat", "manifest.json"), ("stat", "weights")])
def test_a_volume_that_does_not_answer_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, name: str) -> None:
    store = store_at(tmp_path)
    for step in (2, 4):
        save(store, step, write_text(f"w{step}"))
    before, inner = sorted(tmp_path.iterdir()), getattr(Path, method)

    def fails(path: Path, *args: Any, **more: Any) -> Any:
        if path.name == name:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return inner(path, *args, **more)

    with monkeypatch.context() as broken:
        broken.setattr(Path, method, fails)
        with pytest.raises(OSError, match="Input/output error"):
            store.newest()
    assert sorted(tmp_path.iterdir()) == before and content(store) == "w4"


def test_an_older_attempt_is_refused(tmp_path: Path) -> None:
    old = store_at(tmp_path, attempt=1)
    save(old, 2, write_text("old"))
    new = store_at(tmp_path, attempt=2)
    with pytest.raises(FencedError, match="attempt 2 owns this folder, attempt 1 must not write"):
        save(old, 4, write_text("late"))
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
        save(old, 2, write)
    assert store_at(tmp_path, attempt=2).newest() is None


def test_rollback_replaces_one_and_drops_the_later_ones(tmp_path: Path) -> None:
    store = store_at(tmp_path, keep=3)
    for step in (2, 4, 6):
        save(store, step, write_text(f"w{step}"))
    save(store, 4, write_text("corrected"))
    store.drop_after(4)
    assert store.steps() == [2, 4]
    assert content(store) == "corrected"
    found = store.newest(at_most=3)
    assert found is not None and found[1].step == 2


def test_what_a_rollback_publishes_below_newer_steps_is_there_until_they_are_dropped(tmp_path: Path) -> None:
    store = store_at(tmp_path, keep=2)
    for step in (52, 54):
        save(store, step, write_text(f"w{step}"))
    save(store, 50, write_text("w50"))
    assert store.steps() == [50, 52, 54]
    store.drop_after(50)
    assert store.steps() == [50] and content(store) == "w50"


def test_the_newest_checkpoint_before_a_drift_is_kept_while_it_lasts(tmp_path: Path) -> None:
    store = store_at(tmp_path, keep=2)
    kept = []
    for step, drift in ((4, None), (5, None), (9, 8), (10, 8), (15, 8), (20, None)):
        save(store, step, write_text(f"w{step}"), drift)
        kept.append(store.steps())
    assert kept[2:] == [[5, 9], [5, 9, 10], [5, 10, 15], [15, 20]]


@pytest.mark.parametrize("published", [True, False])
def test_a_replacement_cut_between_its_renames_is_finished(tmp_path: Path, published: bool) -> None:
    store = store_at(tmp_path)
    save(store, 2, write_text("before"))
    store.folder(2).rename(tmp_path / "step-000002.old")
    if published:
        save(store, 2, write_text("after"))
        store.folder(2).rename(tmp_path / "keep")
        (tmp_path / "keep").rename(store.folder(2))
    assert content(store_at(tmp_path, attempt=2)) == ("after" if published else "before")
    assert list(tmp_path.glob("*.old")) == []


def test_load_from_takes_a_run_or_a_step_and_changes_nothing(tmp_path: Path) -> None:
    store = store_at(tmp_path, keep=5)
    save(store, 2, write_text("w2"))
    save(store, 10, write_text("w10"))
    assert intact_checkpoint(tmp_path)[0].name == "step-000010"
    assert intact_checkpoint(tmp_path / "step-000002")[0].name == "step-000002"
    (tmp_path / "step-000010" / "state.json").write_text("[]")
    before = sorted(p.name for p in tmp_path.iterdir())
    assert intact_checkpoint(tmp_path)[0].name == "step-000002"
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    with pytest.raises(UserError, match=r"spec.checkpoint.loadFrom: no intact checkpoint.*no step folder"):
        intact_checkpoint(tmp_path / "nothing")


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CheckpointStore:
    """A store with a checkpoint of four files of ten chunks each, of which start-up hashes five chunks."""
    monkeypatch.setattr(parts, "CHUNK_BYTES", 100)
    monkeypatch.setattr("lprl_workload.checkpoint.manifest.SMALL_BYTES", 50)
    monkeypatch.setattr("lprl_workload.checkpoint.manifest.SAMPLE_BYTES", 500)

    def write(folder: Path) -> None:
        for name in "abcd":
            (folder / name).write_bytes(name.encode() * 1000)
        (folder / "state.json").write_text("{}")

    store = store_at(tmp_path)
    save(store, 2, write)
    return store


@pytest.mark.parametrize(("file", "at", "found"), [("a", 10, True), ("d", 999, True), ("state.json", 0, True), ("a", 150, False)])
def test_start_up_hashes_small_files_and_a_sample_of_the_others(large: CheckpointStore, file: str, at: int, found: bool) -> None:
    flip(large.folder(2) / file, at)
    assert isinstance(verify(large.folder(2)), Damage), "all of it is compared on demand"
    assert (large.newest() is None) == found


def test_a_sample_is_bounded_and_spread_over_all_files(large: CheckpointStore) -> None:
    manifest = verify(large.folder(2), "sizes")
    assert isinstance(manifest, Manifest)
    assert sampled(manifest.files, 500) == {"state.json": None, "a": [0, 9], "b": [9], "c": [9], "d": [9]}
    assert sampled(manifest.files, 4000) == dict.fromkeys(["a", "b", "c", "d", "state.json"])


def test_a_checkpoint_of_the_version_before_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files were hashed whole, however long."""
    monkeypatch.setattr(parts, "CHUNK_BYTES", 100)
    store = store_at(tmp_path)
    for step in (2, 4):
        folder = store.folder(step)
        folder.mkdir()
        (folder / "a").write_bytes(b"x" * 1000)
        record = {"path": "a", "nbytes": 1000, "sha256": hashlib.sha256(b"x" * 1000).hexdigest()}
        (folder / "manifest.json").write_text(json.dumps({"schemaVersion": 1, "step": step, "attempt": 1, "files": [record]}))
    found = store.newest()
    assert found is not None and found[0].name == "step-000004" and found[1].shape is None
    flip(found[0] / "a", 500)
    found = store.newest()
    assert found is not None and found[0].name == "step-000002"


@pytest.mark.parametrize("odd", ["more", "missing", "longer"])
def test_only_what_the_writers_said_is_published(tmp_path: Path, odd: str) -> None:
    store = store_at(tmp_path)
    folder = store.begin(2)
    (folder / "a").write_text("a")
    records = [record_of(folder / "a", "a")]
    match odd:
        case "more":
            (folder / "b").write_text("b")
        case "missing":
            (folder / "a").unlink()
        case "longer":
            (folder / "a").write_text("aa")
    with pytest.raises(RuntimeError, match=r"step-000002.a1.tmp/[ab]: (None|1|2) bytes there, (None|1) were written"):
        store.publish(2, records)
    assert store.steps() == []
