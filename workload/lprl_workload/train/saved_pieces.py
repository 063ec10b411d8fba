"""A trainer's state in pieces: rectangles of checkpoint tensors under their Hugging Face names, as Megatron's ranks own them.

Each rank writes the pieces it owns into trainer-RANK-of-WORLD.safetensors (`NAME|master|N`, `NAME|exp_avg|N`,
`NAME|exp_avg_sq|N`, N counting a rank's pieces of a tensor) and where they lie into trainer-RANK-of-WORLD.json. Nothing in them depends
on how the model was cut, so any layout reads them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lprl_api.errors import UserError
from lprl_workload.io.parts import FileRecord
from lprl_workload.process.movement import here
from lprl_workload.train.saved import SavedFiles

SCHEMA = 2
Dimensions = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SavedPiece:
    """`shape` elements from `offset` on."""

    stem: str
    number: int
    offset: Dimensions
    shape: Dimensions


class SavedPieces(SavedFiles):
    """Of the Megatron trainer: rectangles of checkpoint tensors."""

    schema = SCHEMA

    def __init__(self, directory: Path, records: Sequence[FileRecord] = ()) -> None:
        """See SavedFiles."""
        super().__init__(directory, records)
        self.shapes: dict[str, Dimensions] = {}
        """Of every tensor that was trained."""
        self._pieces: dict[str, list[SavedPiece]] = {}
        for stem, document in self.documents.items():
            for name, noted in document["pieces"].items():
                self.shapes[name] = tuple(noted["shape"])
                found = [SavedPiece(stem, n, tuple(offset), tuple(shape)) for n, (offset, shape) in enumerate(noted["parts"])]
                self._pieces.setdefault(name, []).extend(found)

    def whole(self, name: str, field: str) -> Tensor:
        """Return a field of a whole tensor; raises what `rectangle` raises."""
        shape = self.shapes.get(name)
        if shape is None:
            raise UserError(f"{self._directory}: {name} is not in the trainer state", "load another step: this one is not whole")
        return self.rectangle(name, field, (0,) * len(shape), shape)

    def rectangle(self, name: str, field: str, offset: Dimensions, shape: Dimensions) -> Tensor:
        """Return `shape` elements of `field` (master, exp_avg, exp_avg_sq) of a tensor from `offset` on, float32.

        Raises UserError when some are missing, DamagedError when some are not what was written.
        """
        found, done = torch.empty(shape), 0
        for piece in self._pieces.get(name, ()):
            low = [max(a, b) for a, b in zip(offset, piece.offset, strict=True)]
            high = [min(a + n, b + m) for a, n, b, m in zip(offset, shape, piece.offset, piece.shape, strict=True)]
            if any(a >= b for a, b in zip(low, high, strict=True)):
                continue
            columns = tuple(slice(a - p, b - p) for a, b, p in zip(low[1:], high[1:], piece.offset[1:], strict=True))
            target = found[tuple(slice(a - p, b - p) for a, b, p in zip(low, high, offset, strict=True))]
            first = low[0] - piece.offset[0]
            for row, part in self._open(piece.stem).rows(f"{name}|{field}|{piece.number}", first, high[0] - piece.offset[0]):
                target[row - first : row - first + part.shape[0]] = part[(slice(None), *columns)]
                here.tick()
            done += target.numel()
        if done != prod(shape):
            what = f"{self._directory}: elements of {name} are missing from the trainer state"
            raise UserError(what, "load another step: this one is not whole")
        return found


def note_of(pieces: Sequence[tuple[Dimensions, Dimensions]], shape: Dimensions) -> dict[str, Any]:
    """Return what a rank notes of its pieces (offset, shape) of a tensor of `shape`."""
    return {"shape": list(shape), "parts": [[list(offset), list(part)] for offset, part in pieces]}
