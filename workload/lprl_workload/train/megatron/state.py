"""A rank's part of a checkpoint: the pieces it owns of masters and Adam's moments (train/saved_pieces.py), read back under any layout."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lprl_api.errors import UserError
from lprl_workload.io.parts import FileRecord
from lprl_workload.process.movement import here
from lprl_workload.train.megatron.mapping import Mapping
from lprl_workload.train.megatron.masters import StagedMasters, key_of
from lprl_workload.train.megatron.parts import Part
from lprl_workload.train.megatron.weights import read, where
from lprl_workload.train.saved_pieces import SCHEMA, SavedPieces, note_of
from lprl_workload.train.state import FIELDS, Snapshot, random_state, restore_random_state, stem_of


@torch.no_grad()
def take_pieces(masters: StagedMasters, mapping: Mapping, rank: int, steps: int) -> Snapshot:
    """Copy what this rank has to write; what changes afterwards is not in it."""
    owned: dict[str, list[tuple[str, Part]]] = {}
    for (name, _), (held, part) in mapping.owned(rank).items():
        if (key := key_of(held.chunk, held.name)) in masters.items:
            owned.setdefault(name, []).append((key, part))
    shapes, tensors = mapping.tensors, dict[str, Tensor]()
    copies: dict[tuple[str, str], Tensor] = {}
    for name, pieces in owned.items():
        for number, (key, part) in enumerate(pieces):
            for said, field in FIELDS.items():
                if (key, field) not in copies:
                    copies[key, field] = masters.host_copy(masters.items[key], field)
                tensors[f"{name}|{said}|{number}"] = read(copies[key, field], part).contiguous()
    document = {
        "schema": SCHEMA,
        "optimizer_steps": steps,
        "adam_steps": masters.adam_steps,
        "pieces": {name: note_of([(part.offset, part.shape) for _, part in pieces], shapes[name]) for name, pieces in owned.items()},
        "random": random_state(),
    }
    return Snapshot(stem_of(rank, mapping.mesh.world), tensors, document)


@torch.no_grad()
def load_pieces(directory: Path, masters: StagedMasters, mapping: Mapping, rank: int, records: Sequence[FileRecord] = ()) -> int:
    """Restore masters, optimizer and (where the same rank of as many saved them) random generators; returns optimizer steps.

    See load_state for what it raises. Forward weights are still to be refreshed.
    """
    with SavedPieces(directory, records) as saved:
        wanted = mapping.tensors
        for name, shape in saved.shapes.items():
            if wanted.get(name) != shape:
                raise UserError(f"{directory}: {name} of shape {list(shape)} is not this model's", "load a checkpoint of the same model")
        for held in mapping.held(rank):
            master = masters.items.get(key_of(held.chunk, held.name))
            if master is None:
                continue
            for said, field in FIELDS.items():
                whole: Tensor = getattr(master, field)
                whole.zero_()  # padding
                for part in held.cutting.parts:
                    target = where(whole, part)
                    target.copy_(saved.rectangle(part.name, said, part.offset, part.shape).reshape(target.shape))
                    here.tick()
        masters.restore_steps(saved.adam_steps)
        own = saved.documents.get(stem_of(rank, mapping.mesh.world))
        if own is not None:
            restore_random_state(own["random"])
        return saved.optimizer_steps
