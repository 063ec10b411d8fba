"""Samples -> one micro-batch of tensors: all tokens end to end, the prompt that samples share once.

What is left out changes no log-probability: padding, prompts met before, and what comes after the last predictor of a drawn token.
Rows of [B, R] hold drawn tokens only, side by side: a token of the world is read, and has no cell.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lprl_workload.episode import NOTHING, Float32, TrainSample
from lprl_workload.hf.packed_attention import Families, Layout, Whole, families, whole

SHARE_ON_CPU, SHARE = 1 / 8, 1 / 3
"""Part of a group's tokens that sharing its prompt must save: attention with a mask is slower than without, on a GPU much so."""

IDLE = TrainSample(np.zeros(1, np.int32), np.zeros(1, np.bool_), NOTHING, NOTHING)
"""What a rank that shares a model runs where a micro-batch has no samples, so that collectives match: no drawn token, gradient zero."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """B samples, N tokens, R = most drawn tokens of a sample, T = drawn tokens in all, U = tokens that predict any."""

    input_ids: Tensor
    """int64 [1, N]."""
    positions: Tensor
    """int64 [1, N]: of each token in its own sequence."""
    layout: Layout
    """Which tokens attend to which."""
    predictors: Tensor
    """int64 [U] ascending: tokens whose logits predict a drawn token, or several (the first ones after a shared prompt)."""
    rows: Tensor
    """int64 [T] ascending: the predictor of each drawn token, as a number in `predictors`."""
    targets: Tensor
    """int64 [T]: the drawn tokens, in the order of `rows`."""
    cells: Tensor
    """int64 [T]: where each of them lies in the flattened [B * R]."""
    shape: tuple[int, int]
    """(B, R)."""
    lengths: tuple[int, ...]
    """Drawn tokens of each sample."""

    def spread(self, values: Tensor) -> Tensor:
        """Return token values [T], in the order of `targets`, as [B, R], 0 on padding; keeps the gradient."""
        rows, width = self.shape
        return torch.zeros(rows * width, dtype=values.dtype, device=values.device).index_copy(0, self.cells, values).view(rows, width)

    def field(self, rows: Sequence[Float32]) -> Tensor:
        """Return one float32 [R] per sample as float32 [B, R]."""
        found = np.zeros(self.shape, np.float32)
        for row, values in enumerate(rows):
            found[row, : len(values)] = values
        return torch.from_numpy(found).to(self.cells.device)

    def mask(self) -> Tensor:
        """Return 1 on drawn tokens, float32 [B, R]."""
        return self.spread(torch.ones(self.cells.numel(), device=self.cells.device))


class _Piece:
    """One sample cut at its first drawn token."""

    def __init__(self, sample: TrainSample) -> None:
        self.drawn = np.flatnonzero(sample.mask)
        """Places of the drawn tokens; the first token of a sample is never one (TrainSample)."""
        end = max(1, int(self.drawn[-1]) if len(self.drawn) else 0)
        cut = int(self.drawn[0]) if len(self.drawn) else end
        self.prompt, self.rest = sample.ids[:cut], sample.ids[cut:end]
        self.targets = sample.ids[self.drawn]


class _Tokens:
    """The tokens of a micro-batch as they are laid down, and which of them predict what."""

    def __init__(self) -> None:
        self.ids: list[np.ndarray] = []
        self.positions: list[np.ndarray] = []
        self.predictors: dict[int, np.ndarray] = {}
        """By sample: the predictor of each drawn token."""
        self._count = 0

    def lay(self, ids: np.ndarray, first: int) -> int:
        """Append tokens whose positions begin at `first`; returns where the first of them lies."""
        self.ids.append(ids)
        self.positions.append(np.arange(first, first + len(ids)))
        self._count += len(ids)
        return self._count - len(ids)

    def lay_rest(self, number: int, piece: _Piece, prompt: int) -> None:
        """Append what follows the prompt of sample `number`, which lies at `prompt`."""
        cut = len(piece.prompt)
        start = self.lay(piece.rest, cut)
        before = piece.drawn - 1
        self.predictors[number] = np.where(before < cut, prompt + before, start + before - cut)


def collate(samples: Sequence[TrainSample], device: torch.device, share: bool = True) -> MicroBatch:
    """Build the micro-batch of `samples`, of which there is at least one; unless `share`, each has its prompt for itself."""
    pieces, tokens = [_Piece(sample) for sample in samples], _Tokens()
    layout = _lay_out(pieces, tokens, device, share)
    width = max(1, max(len(piece.drawn) for piece in pieces))
    flat = np.concatenate([tokens.predictors[n] for n in range(len(pieces))])
    order = np.argsort(flat, kind="stable")
    predictors, rows = np.unique(flat[order], return_inverse=True)
    targets = np.concatenate([piece.targets for piece in pieces])[order]
    cells = np.concatenate([n * width + np.arange(len(piece.drawn)) for n, piece in enumerate(pieces)])[order]

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.int64)).to(device)

    return MicroBatch(
        input_ids=tensor(np.concatenate(tokens.ids))[None],
        positions=tensor(np.concatenate(tokens.positions))[None],
        layout=layout,
        predictors=tensor(predictors),
        rows=tensor(rows),
        targets=tensor(targets),
        cells=tensor(cells),
        shape=(len(pieces), width),
        lengths=tuple(len(piece.drawn) for piece in pieces),
    )


def _lay_out(pieces: Sequence[_Piece], tokens: _Tokens, device: torch.device, share: bool) -> Layout:
    """Lay down the tokens of all samples and return their blocks: families by prompt length and size, then samples on their own."""
    by_prompt: dict[bytes, list[int]] = defaultdict(list)
    for number, piece in enumerate(pieces):
        by_prompt[piece.prompt.tobytes()].append(number)
    by_size: dict[tuple[int, int], list[list[int]]] = defaultdict(list)
    alone: list[int] = []
    for members in by_prompt.values():
        prompt, rest = len(pieces[members[0]].prompt), sum(len(pieces[n].rest) for n in members)
        saved = prompt * (len(members) - 1)
        if share and rest and saved >= (SHARE_ON_CPU if device.type == "cpu" else SHARE) * (prompt * len(members) + rest):
            by_size[prompt, len(members)].append(members)
        else:
            alone += members
    blocks: list[Whole | Families] = []
    for (length, _), groups in by_size.items():
        starts = [tokens.lay(pieces[members[0]].prompt, 0) for members in groups]
        for start, members in zip(starts, groups, strict=True):
            for n in members:
                tokens.lay_rest(n, pieces[n], start)
        blocks.append(families(len(groups), length, [len(pieces[n].rest) for members in groups for n in members], device))
    for n in alone:
        tokens.lay_rest(n, pieces[n], tokens.lay(pieces[n].prompt, 0))
    if alone:
        blocks.append(whole([len(pieces[n].prompt) + len(pieces[n].rest) for n in alone], device))
    return tuple(blocks)
