"""What ranks save in pieces is read back in any other: each element once, from whichever file it lies in."""

import json
from math import prod
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from tests.unit.lprl_workload.train.megatron.meshes import mappings, numbered, shape_of

from lprl_api.errors import UserError
from lprl_workload.io.parts import FileRecord
from lprl_workload.process.errors import DamagedError
from lprl_workload.train import saved
from lprl_workload.train.megatron.mapping import Mapping
from lprl_workload.train.megatron.stages import Stages
from lprl_workload.train.mesh import TrainMesh
from lprl_workload.train.saved_pieces import SCHEMA, SavedPieces, note_of
from lprl_workload.train.state import Snapshot, stem_of, write_snapshot


def write(mapping: Mapping, folder: Path) -> list[FileRecord]:
    """Save a numbered checkpoint as the ranks of a mapping own it."""
    checkpoint, records = {name: tensor.float() for name, tensor in numbered(mapping.shape).items()}, list[FileRecord]()
    for rank in range(mapping.mesh.world):
        owned: dict[str, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
        for entry in mapping.manifest().entries:
            for piece in entry.pieces:
                if piece.rank == rank:
                    owned.setdefault(entry.name, []).append((piece.offset, piece.shape))
        tensors = {
            f"{name}|master|{number}": checkpoint[name][tuple(slice(a, a + n) for a, n in zip(offset, shape, strict=True))].clone()
            for name, pieces in owned.items()
            for number, (offset, shape) in enumerate(pieces)
        }
        notes = {name: note_of(pieces, tuple(checkpoint[name].shape)) for name, pieces in owned.items()}
        document = {"schema": SCHEMA, "optimizer_steps": 3, "adam_steps": 2, "pieces": notes}
        records += write_snapshot(folder, Snapshot(stem_of(rank, mapping.mesh.world), tensors, document))
    return records


@settings(max_examples=25, deadline=None)
@given(mappings(), mappings())
def test_any_layout_reads_what_any_other_saved(tmp_path_factory: pytest.TempPathFactory, one: Mapping, other: Mapping) -> None:
    folder = tmp_path_factory.mktemp("saved")
    records = write(one, folder)
    try:
        other = Mapping(one.shape, other.mesh, Stages((one.shape.layers,) if other.mesh.pp == 1 else other.stages.layers, other.mesh.vpp))
        held = [part for rank in range(other.mesh.world) for h in other.held(rank) for part in h.cutting.parts]
    except ValueError:  # this model is not cut so
        held = [part for h in one.held(0) for part in h.cutting.parts]
    whole = numbered(one.shape)
    with SavedPieces(folder, records) as found:
        assert found.optimizer_steps == 3 and found.adam_steps == 2 and found.shapes == {n: tuple(t.shape) for n, t in whole.items()}
        for part in held[:40]:
            index = tuple(slice(a, a + n) for a, n in zip(part.offset, part.shape, strict=True))
            assert torch.equal(found.rectangle(part.name, "master", part.offset, part.shape), whole[part.name][index].float())


def test_a_column_of_rows_that_are_read_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved, "READ_BYTES", 1)
    mapping = Mapping(shape_of(), TrainMesh(tp=2), Stages((2,)))
    write(mapping, tmp_path)
    name = "model.layers.1.mlp.down_proj.weight"
    whole = numbered(mapping.shape)[name].float()
    with SavedPieces(tmp_path) as found:
        assert torch.equal(found.rectangle(name, "master", (1, 7), (3, 3)), whole[1:4, 7:10]), "over both ranks' columns"
        assert torch.equal(found.whole(name, "master"), whole) and prod(whole.shape) == whole.numel()


def test_what_is_missing_or_not_what_was_written_is_named(tmp_path: Path) -> None:
    records = write(Mapping(shape_of(), TrainMesh(tp=2), Stages((2,))), tmp_path)
    note = tmp_path / "trainer-00001-of-00002.json"
    document = json.loads(note.read_text())
    del document["pieces"]["model.layers.0.self_attn.q_proj.weight"]
    note.write_text(json.dumps(document))
    with pytest.raises(DamagedError, match=note.name):
        SavedPieces(tmp_path, records)
    with (
        SavedPieces(tmp_path) as found,
        pytest.raises(UserError, match=r"elements of model\.layers\.0\.self_attn\.q_proj\.weight are missing"),
    ):
        found.whole("model.layers.0.self_attn.q_proj.weight", "master")
