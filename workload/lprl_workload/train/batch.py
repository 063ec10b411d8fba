"""Samples -> one right-padded micro-batch of tensors.

Padding stands on the right and attention is causal, so no drawn token sees it: no attention mask is needed, and attention
takes its fast path. Rows of [B, R] hold drawn tokens only, side by side: a token of the world is read, and has no cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lprl_workload.episode import Float32, TrainSample


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """B samples, L = longest sample, R = most drawn tokens of a sample, T = drawn tokens in all."""

    input_ids: Tensor
    """int64 [B, L], 0 on padding."""
    predictors: Tensor
    """int64 [T]: positions in the flattened [B * L] whose logits predict a drawn token."""
    targets: Tensor
    """int64 [T]: the drawn tokens."""
    cells: Tensor
    """int64 [T]: where each drawn token lies in the flattened [B * R]."""
    shape: tuple[int, int]
    """(B, R)."""
    lengths: tuple[int, ...]
    """Drawn tokens of each sample."""

    def spread(self, values: Tensor) -> Tensor:
        """Return token values [T] as [B, R], 0 on padding; keeps the gradient."""
        rows, width = self.shape
        return torch.zeros(rows * width, dtype=values.dtype, device=values.device).index_copy(0, self.cells, values).view(rows, width)

    def field(self, rows: Sequence[Float32]) -> Tensor:
        """Return one float32 [R] per sample as float32 [B, R]."""
        flat = np.concatenate([np.zeros(0, np.float32), *rows])
        return self.spread(torch.from_numpy(flat).to(self.cells.device))

    def mask(self) -> Tensor:
        """Return 1 on drawn tokens, float32 [B, R]."""
        return self.spread(torch.ones(self.cells.numel(), device=self.cells.device))


def collate(samples: Sequence[TrainSample], device: torch.device) -> MicroBatch:
    """Build the micro-batch of `samples`, of which there is at least one."""
    length = max(len(s.ids) for s in samples)
    at = [np.flatnonzero(s.mask) for s in samples]
    width = max(1, max(map(len, at)))
    ids = np.zeros((len(samples), length), np.int64)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = sample.ids
    # The logits of a position predict the next token; the first token is never drawn (TrainSample).
    predictors = np.concatenate([row * length + places - 1 for row, places in enumerate(at)])
    targets = np.concatenate([s.ids[places] for s, places in zip(samples, at, strict=True)])
    cells = np.concatenate([row * width + np.arange(len(places)) for row, places in enumerate(at)])

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.int64)).to(device)

    lengths = tuple(map(len, at))
    return MicroBatch(tensor(ids), tensor(predictors), tensor(targets), tensor(cells), (len(samples), width), lengths)
