"""Samples -> one right-padded micro-batch of tensors.

Padding stands on the right and attention is causal, so no response token sees it: no attention mask is needed, and attention
takes its fast path.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lprl_workload.data import TrainSample


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """B samples, L = longest prompt + response, R = longest response, T = response tokens in all."""

    input_ids: Tensor
    """int64 [B, L], 0 on padding."""
    predictors: Tensor
    """int64 [T]: positions in the flattened [B * L] whose logits predict a response token."""
    targets: Tensor
    """int64 [T]: the response tokens."""
    cells: Tensor
    """int64 [T]: where each response token lies in the flattened [B * R]."""
    shape: tuple[int, int]
    """(B, R)."""
    lengths: tuple[int, ...]
    """Response tokens of each sample."""

    def spread(self, values: Tensor) -> Tensor:
        """Return token values [T] as [B, R], 0 on padding; keeps the gradient."""
        rows, width = self.shape
        return torch.zeros(rows * width, dtype=values.dtype, device=values.device).index_copy(0, self.cells, values).view(rows, width)

    def field(self, rows: Sequence[Sequence[float]]) -> Tensor:
        """Return one list of numbers per sample as float32 [B, R]."""
        flat = [value for row in rows for value in row]
        return self.spread(torch.tensor(flat, dtype=torch.float32, device=self.cells.device))

    def mask(self) -> Tensor:
        """Return 1 on response tokens, float32 [B, R]."""
        return self.spread(torch.ones(self.cells.numel(), device=self.cells.device))


def collate(samples: Sequence[TrainSample], device: torch.device) -> MicroBatch:
    """Build the micro-batch of `samples`; every sample needs at least one prompt token."""
    length = max(len(s.prompt_ids) + len(s.response_ids) for s in samples)
    width = max(1, max(len(s.response_ids) for s in samples))
    ids: list[tuple[int, ...]] = []
    predictors: list[int] = []
    targets: list[int] = []
    cells: list[int] = []
    for row, sample in enumerate(samples):
        if not sample.prompt_ids:
            raise ValueError("a training sample needs at least one prompt token")
        tokens = sample.prompt_ids + sample.response_ids
        ids.append(tokens + (0,) * (length - len(tokens)))
        first = row * length + len(sample.prompt_ids) - 1
        predictors.extend(range(first, first + len(sample.response_ids)))
        targets.extend(sample.response_ids)
        cells.extend(range(row * width, row * width + len(sample.response_ids)))

    def tensor(values: Sequence[object]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=device)

    lengths = tuple(len(s.response_ids) for s in samples)
    return MicroBatch(tensor(ids), tensor(predictors), tensor(targets), tensor(cells), (len(samples), width), lengths)
