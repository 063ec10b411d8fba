"""A trainer's state on disk: safetensors for tensors, JSON for numbers, no pickle.

Each rank writes the rows it holds, or its share where all hold the same, into trainer-RANK-of-WORLD.safetensors (`NAME|master`,
`NAME|exp_avg`, `NAME|exp_avg_sq`) and into trainer-RANK-of-WORLD.json its row ranges, step counts and random generators. Reading takes
the rows it needs from whatever files cover them, so another number of ranks can go on from the same checkpoint.
"""

import json
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from lprl_api.errors import UserError
from lprl_workload.folder.header import TensorInfo, read_header
from lprl_workload.io.dtypes import DTYPES
from lprl_workload.io.parts import FileRecord, PartReader, write_part
from lprl_workload.io.tensor_file import write_tensors
from lprl_workload.process.errors import DamagedError
from lprl_workload.process.movement import here
from lprl_workload.train.masters import Master, Masters

SCHEMA = 1
FILE = re.compile(r"^trainer-(\d{5})-of-(\d{5})\.json$")
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
    return Snapshot(f"trainer-{rank:05d}-of-{world:05d}", tensors, document)


def share_of(masters: Masters, name: str, world: int) -> int:
    """Return the rank that writes a parameter of which every rank holds all rows: equal shares, in the order of the parameters."""
    before, total = masters.places[name]
    return min(world - 1, before * world // max(1, total))


def write_snapshot(directory: Path, snapshot: Snapshot) -> tuple[FileRecord, ...]:
    """Write a snapshot's files into the existing `directory`, durably; returns what was written. Raises StorageFullError."""
    stem = directory / snapshot.stem
    found = [write_tensors(snapshot.tensors, stem.with_suffix(".safetensors"))] if snapshot.tensors else []
    return *found, write_part(stem.with_suffix(".json"), (json.dumps(snapshot.document, sort_keys=True) + "\n").encode())


@dataclass(frozen=True, slots=True)
class SavedParts:
    """The files of all ranks of one checkpoint: which rows of which parameters lie where."""

    directory: Path
    documents: Mapping[str, Mapping[str, Any]]
    """By stem."""
    records: Mapping[str, FileRecord]
    """By name; empty where nothing is known of the files."""

    @classmethod
    def read(cls, directory: Path, records: Sequence[FileRecord] = ()) -> "SavedParts":
        """Read what the ranks noted. Raises UserError when they are not of one step, DamagedError when one is not what was written."""
        known = {record.path: record for record in records}
        names = sorted(path.name for path in directory.iterdir() if FILE.match(path.name)) if directory.is_dir() else []
        if not names:
            raise UserError(f"{directory}: no trainer state (trainer-*-of-*.json)", "load from a step folder of a checkpoint")
        documents = {Path(name).stem: _document(directory / name, known.get(name)) for name in names}
        steps = {(int(d["optimizer_steps"]), int(d["adam_steps"]), int(d["schema"])) for d in documents.values()}
        if len(steps) > 1 or next(iter(steps))[2] != SCHEMA:
            raise UserError(
                f"{directory}: trainer files of different steps or schema {sorted(steps)}",
                "load another step, or start without this checkpoint",
            )
        return cls(directory, documents, known)

    @property
    def steps(self) -> tuple[int, int]:
        """Return the optimizer's steps, and those that Adam counted."""
        first = next(iter(self.documents.values()))
        return int(first["optimizer_steps"]), int(first["adam_steps"])

    def rows(self, wanted: Callable[[str, int], Iterable[tuple[str, int, int]]]) -> Iterable[tuple[str, str, int, Tensor]]:
        """Yield (parameter, field, first row, rows) from file after file, in the order they lie there.

        `wanted(parameter, rows of it in all)` gives (field, first, last) of what is read. Raises UserError for a file that is none,
        DamagedError for one that is not what was written.
        """
        for stem, document in self.documents.items():
            if document["rows"]:
                yield from self._rows_of(self.directory / f"{stem}.safetensors", document["rows"], wanted)

    def _rows_of(
        self, file: Path, held: Mapping[str, Sequence[int]], wanted: Callable[[str, int], Iterable[tuple[str, int, int]]]
    ) -> Iterable[tuple[str, str, int, Tensor]]:
        with PartReader(file, self.records.get(file.name)) as reader:
            infos = {info.name: info for info in read_header(file)}
            found = []
            for name, (first, last, total) in held.items():
                for field, low, high in wanted(name, total):
                    low, high = max(first, low), min(last, high)
                    if low < high:
                        found.append((_info(file, infos, f"{name}|{field}"), name, field, low, low - first, high - first))
            for info, name, field, low, start, stop in sorted(found, key=lambda item: item[0].start):
                yield name, field, low, _read_rows(reader, info, start, stop)
                here.tick()


def _document(path: Path, record: FileRecord | None) -> Mapping[str, Any]:
    with PartReader(path, record) as reader:
        raw = bytes(reader.read(0, reader.size))
    try:
        found: Mapping[str, Any] = json.loads(raw)
    except ValueError as error:
        raise DamagedError(f"{path}: not JSON ({error})") from error
    return found


def _info(file: Path, infos: Mapping[str, TensorInfo], name: str) -> TensorInfo:
    if name not in infos:
        raise UserError(f"{file}: {name} is not in it", "load another step: this one is damaged")
    return infos[name]


def _read_rows(reader: PartReader, info: TensorInfo, start: int, stop: int) -> Tensor:
    """Read rows [start, stop) of a tensor."""
    each = info.nbytes // max(1, info.shape[0])
    raw = reader.read(info.start + start * each, (stop - start) * each)
    return torch.frombuffer(raw, dtype=DTYPES[info.dtype]).view(stop - start, *info.shape[1:])


def load_state(directory: Path, masters: Masters, rank: int, world: int, records: Sequence[FileRecord] = ()) -> int:
    """Restore masters, optimizer and (where the same rank and world saved them) random generators; returns optimizer steps.

    What is read is compared with `records`, as far as there are any. Forward weights are still to be refreshed.
    Raises UserError naming what is missing or does not fit, DamagedError naming the file that is not what was written.
    """
    saved = SavedParts.read(directory, records)
    done = dict.fromkeys(masters.items, 0)

    def wanted(name: str, total: int) -> list[tuple[str, int, int]]:
        master = masters.items.get(name)
        if master is None or master.parameter.shape[0] != total:
            raise UserError(f"{directory}: {name} with {total} rows is not this model's", "load a checkpoint of the same model")
        return [(key, master.first, master.last) for key in FIELDS]

    for name, key, low, part in saved.rows(wanted):
        _copy(part, masters.items[name], FIELDS[key], low, low + part.shape[0])
        done[name] += part.shape[0] if key == "master" else 0
    for name, rows in done.items():
        if rows != masters.items[name].value.shape[0]:
            raise UserError(f"{directory}: rows of {name} are missing from the trainer state", "load another step: this one is not whole")
    optimizer_steps, adam_steps = saved.steps
    masters.restore_steps(adam_steps)
    own = f"trainer-{rank:05d}-of-{world:05d}"
    if own in saved.documents:
        restore_random_state(dict(saved.documents[own]["random"]))
    return optimizer_steps


def _copy(part: Tensor, master: Master, field: str, low: int, high: int) -> None:
    target: Tensor = getattr(master, field)[low - master.first : high - master.first]
    if target.shape != part.shape:
        raise UserError(
            f"{master.name}: the checkpoint has rows of shape {list(part.shape[1:])}, the model {list(target.shape[1:])}",
            "load a checkpoint of the same model",
        )
    target.copy_(part)


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
