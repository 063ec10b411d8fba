"""A trainer's state on disk: safetensors for tensors, JSON for numbers, no pickle.

Each rank writes the rows it holds, or its share where all hold the same, into trainer-RANK-of-WORLD.safetensors (`NAME|master`,
`NAME|exp_avg`, `NAME|exp_avg_sq`) and into trainer-RANK-of-WORLD.json its row ranges, step counts and random generators. Reading takes
the rows it needs from whatever files cover them, so another number of ranks can go on from the same checkpoint.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from lprl_api.errors import UserError
from lprl_workload.io.parts import FileRecord, write_part
from lprl_workload.io.tensor_file import write_tensors
from lprl_workload.process.movement import here
from lprl_workload.train.masters import Master, Masters
from lprl_workload.train.saved import SCHEMA, SavedParts

FIELDS = {"master": "value", "exp_avg": "moment", "exp_avg_sq": "second_moment"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a rank writes, as it was at one moment: copies in host memory, 12 bytes for each element that it writes."""

    stem: str
    tensors: Mapping[str, Tensor]
    document: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        """Return the host memory it holds."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


def take_snapshot(masters: Masters, rank: int, world: int, steps: int) -> Snapshot:
    """Copy what this rank has to write; what changes afterwards is not in it."""
    held = {name: m for name, m in masters.items.items() if m.last > m.first and (m.sharded or share_of(masters, name, world) == rank)}
    document = {
        "schema": SCHEMA,
        "optimizer_steps": steps,
        "adam_steps": masters.adam_steps,
        "rows": {name: [m.first, m.last, m.parameter.shape[0]] for name, m in held.items()},
        "random": random_state(),
    }
    tensors = {f"{name}|{key}": masters.host_copy(m, field) for name, m in held.items() for key, field in FIELDS.items()}
    return Snapshot(stem_of(rank, world), tensors, document)


def stem_of(rank: int, world: int) -> str:
    """Return what the files of a rank are called, without suffix."""
    return f"trainer-{rank:05d}-of-{world:05d}"


def share_of(masters: Masters, name: str, world: int) -> int:
    """Return the rank that writes a parameter of which every rank holds all rows: equal shares, in the order of the parameters."""
    before, total = masters.places[name]
    return min(world - 1, before * world // max(1, total))


def write_snapshot(directory: Path, snapshot: Snapshot) -> tuple[FileRecord, ...]:
    """Write a snapshot's files into the existing `directory`, durably; returns what was written. Raises StorageFullError."""
    stem = directory / snapshot.stem
    found = [write_tensors(snapshot.tensors, stem.with_suffix(".safetensors"))] if snapshot.tensors else []
    return *found, write_part(stem.with_suffix(".json"), (json.dumps(snapshot.document, sort_keys=True) + "\n").encode())


def load_state(directory: Path, masters: Masters, rank: int, world: int, records: Sequence[FileRecord] = ()) -> int:
    """Restore masters, optimizer and (where the same rank and world saved them) random generators; returns optimizer steps.

    What is read is compared with `records`, as far as there are any. Forward weights are still to be refreshed.
    Raises UserError naming what is missing or does not fit, DamagedError naming the file that is not what was written.
    """
    with SavedParts(directory, records) as saved:
        for name, total in saved.parameters.items():
            master = masters.items.get(name)
            if master is None or master.parameter.shape[0] != total:
                raise UserError(f"{directory}: {name} with {total} rows is not this model's", "load a checkpoint of the same model")
        for name, master in masters.items.items():
            for key, field in FIELDS.items():
                for low, part in saved.read(name, key, master.first, master.last):
                    _copy(part, master, field, low, low + part.shape[0])
        masters.restore_steps(saved.adam_steps)
        own = saved.documents.get(stem_of(rank, world))
        if own is not None:
            restore_random_state(own["random"])
        return saved.optimizer_steps


def _copy(part: Tensor, master: Master, field: str, low: int, high: int) -> None:
    target: Tensor = getattr(master, field)[low - master.first : high - master.first]
    if target.shape != part.shape:
        raise UserError(
            f"{master.name}: the checkpoint has rows of shape {list(part.shape[1:])}, the model {list(target.shape[1:])}",
            "load a checkpoint of the same model",
        )
    target.copy_(part)
    here.tick()


def random_state() -> dict[str, Any]:
    """Return the state of the torch (CPU, and CUDA where used), python and numpy generators as JSON values."""
    kind, keys, position, has_gauss, gauss = numpy.random.get_state(legacy=True)
    version, internal, gauss_next = random.getstate()
    state = {
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
        "python": [version, list(internal), gauss_next],
        "numpy": [kind, [int(k) for k in keys], int(position), int(has_gauss), float(gauss)],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state().numpy().tobytes().hex()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Undo `random_state`."""
    torch.set_rng_state(_bytes(state["torch"]))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    numpy.random.set_state((kind, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(_bytes(state["cuda"]))


def _bytes(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
