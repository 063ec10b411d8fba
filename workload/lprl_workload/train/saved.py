"""The trainer's state of a checkpoint, read row by row from the files of however many ranks wrote it."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from lprl_api.errors import UserError
from lprl_workload.folder.header import TensorInfo, read_header
from lprl_workload.io.dtypes import DTYPES
from lprl_workload.io.parts import FileRecord, PartReader
from lprl_workload.process.errors import DamagedError

SCHEMA = 1
"""Of the torch trainer's files; those of pieces have their own (saved_pieces.py)."""
WRITERS = {1: "torch", 2: "megatron"}
"""Which `backends.trainer` writes a schema."""
FILE = re.compile(r"^trainer-(\d{5})-of-(\d{5})\.json$")
READ_BYTES = 256 * 1024 * 1024
"""Rows handed out at a time, but one at least."""


@dataclass(frozen=True, slots=True)
class Opened:
    """One rank's tensors."""

    path: Path
    reader: PartReader
    infos: Mapping[str, TensorInfo]

    def rows(self, name: str, start: int, stop: int) -> Iterator[tuple[int, Tensor]]:
        """Yield (row, rows) of a tensor's rows [start, stop). Raises DamagedError."""
        if name not in self.infos:
            raise UserError(f"{self.path}: {name} is not in it", "load another step: this one is damaged")
        info = self.infos[name]
        each = info.nbytes // max(1, info.shape[0])
        count = max(1, READ_BYTES // max(1, each))
        for row in range(start, stop, count):
            last = min(stop, row + count)
            raw = self.reader.read(info.start + row * each, (last - row) * each)
            yield row, torch.frombuffer(raw, dtype=DTYPES[info.dtype]).view(last - row, *info.shape[1:])


class SavedFiles:
    """The trainer's folder of a checkpoint: what its ranks noted, and their tensors. As a context manager, which closes its files."""

    schema: int

    def __init__(self, directory: Path, records: Sequence[FileRecord] = ()) -> None:
        """Read what the ranks noted; what is read is compared with `records`, as far as there are any.

        Raises UserError when they are not of one step or another trainer's, DamagedError when one is not what was written.
        """
        self._directory, self._records = directory, {record.path: record for record in records}
        self._files: dict[str, Opened] = {}
        names = sorted(path.name for path in directory.iterdir() if FILE.match(path.name)) if directory.is_dir() else []
        if not names:
            raise UserError(f"{directory}: no trainer state (trainer-*-of-*.json)", "load from a step folder of a checkpoint")
        self.documents: dict[str, dict[str, Any]] = {Path(name).stem: self._document(name) for name in names}
        """What each rank noted, by its files' stem."""
        steps = {(int(d["optimizer_steps"]), int(d["adam_steps"]), int(d["schema"])) for d in self.documents.values()}
        self.optimizer_steps, self.adam_steps, found = next(iter(steps))
        if len(steps) > 1 or found not in WRITERS:
            raise UserError(
                f"{directory}: trainer files of different steps or schema {sorted(steps)}",
                "load another step, or start without this checkpoint",
            )
        if found != self.schema:
            what = f"{directory}: the trainer state of backends.trainer {WRITERS[found]}, which {WRITERS[self.schema]} does not read"
            raise UserError(what, f"go on with backends.trainer {WRITERS[found]}, or start from an export of this checkpoint")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for opened in self._files.values():
            opened.reader.__exit__()

    def _open(self, stem: str) -> Opened:
        if stem not in self._files:
            path = self._directory / f"{stem}.safetensors"
            reader = PartReader(path, self._records.get(path.name))
            reader.read(0, min(8, reader.size))  # the header's own bytes are compared before it is believed
            self._files[stem] = Opened(path, reader, {info.name: info for info in read_header(path)})
        return self._files[stem]

    def _document(self, name: str) -> dict[str, Any]:
        with PartReader(self._directory / name, self._records.get(name)) as reader:
            raw = bytes(reader.read(0, reader.size))
        try:
            found: dict[str, Any] = json.loads(raw)
        except ValueError as error:
            raise DamagedError(f"{self._directory / name}: not JSON ({error})") from error
        return found


class SavedParts(SavedFiles):
    """Of the torch trainer: rows of parameters."""

    schema = SCHEMA

    def __init__(self, directory: Path, records: Sequence[FileRecord] = ()) -> None:
        """See SavedFiles."""
        super().__init__(directory, records)
        self.parameters: dict[str, int] = {}
        """Rows of every parameter."""
        self._held: dict[str, list[tuple[int, int, str]]] = {}
        for stem, document in self.documents.items():
            for name, (first, last, total) in document["rows"].items():
                self.parameters[name] = total
                self._held.setdefault(name, []).append((first, last, stem))

    def read(self, name: str, field: str, first: int, last: int) -> Iterator[tuple[int, Tensor]]:
        """Yield (row, rows) of `field` (master, exp_avg, exp_avg_sq) of parameter `name`, which together are its rows [first, last).

        Raises UserError when some are missing, DamagedError when some are not what was written.
        """
        done = 0
        for low, high, stem in self._held.get(name, []):
            start, stop = max(low, first), min(high, last)
            if start < stop:
                for row, part in self._open(stem).rows(f"{name}|{field}", start - low, stop - low):
                    yield low + row, part
                    done += part.shape[0]
        if done != last - first:
            message = f"{self._directory}: rows of {name} are missing from the trainer state"
            raise UserError(message, "load another step: this one is not whole")


def schema_of(directory: Path) -> int | None:
    """Return which schema the trainer files of a folder say they have; None where nothing can be read of it (opening them says why)."""
    first = min((path for path in directory.iterdir() if FILE.match(path.name)), default=None) if directory.is_dir() else None
    try:
        return int(json.loads(first.read_bytes())["schema"]) if first is not None else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
