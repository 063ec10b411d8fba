"""From weights to launches: what `fp8` and `int4` share."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lprl_workload.quant.batch import Seen
from lprl_workload.quant.source import weight_like
from lprl_workload.quant.triton import common_kernels
from lprl_workload.quant.triton.work import Class, How, Matrix, Tile, by_shape, classes, steps, table

KINDS = {torch.bfloat16: 0, torch.float32: 1, torch.float16: 2}
"""SOURCE of common_kernels.py."""
EXACT: dict[str, Any] = {"enable_fp_fusion": False}
"""Of every launch: a product and a sum are two roundings, as on the CPU."""
TOTAL_CHUNK = 256
SUMS = 2
"""Of a program and of a matrix: squared error, squared weight."""
Row = tuple[int, int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch: weights of a class."""

    kind: Class
    matrices: list[Matrix]
    how: int
    """HOW of common_kernels.py."""
    found: tuple[Tensor | int, ...]
    """How programs find their weight: table, owners, programs each, rows, columns; source, out and scales with their steps."""
    programs: int
    bad: Tensor
    """int32 [weights], zeros: set where a value is not finite."""
    partial: Tensor
    """float64 [programs, SUMS]; [1, SUMS] where nobody asks."""


def source_of(weight: Tensor) -> Tensor:
    """Return a weight as the kernels read it: contiguous, detached. Raises ValueError for codes and integers."""
    found = weight_like(weight).contiguous()
    return found if found.dtype in KINDS else found.to(torch.bfloat16)


def on(device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which kernels are launched on `device`."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def upload(rows: Sequence[Row], programs: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the table and the owners of a launch on `device`, by one copy that nothing waits for."""
    numbers, owner = table(rows, programs)
    flat = np.zeros(numbers.size + -(-owner.size // 2), dtype=np.int64)
    flat[: numbers.size] = numbers.reshape(-1)
    flat[numbers.size :].view(np.int32)[: owner.size] = owner
    host = torch.from_numpy(flat)
    there = host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host
    return there[: numbers.size], there[numbers.size :].view(torch.int32)


def row_of(matrix: Matrix) -> Row:
    """Return a matrix's row of the table."""
    return (matrix.source, matrix.out, matrix.scales, matrix.rows, matrix.cols, 0)


def matrices_of(source: Tensor, out: Tensor, out_size: int, scale: Tensor | None, scale_size: int) -> list[Matrix]:
    """Return the matrices of a weight [..., N, K]; `out_size`, `scale_size`: bytes each writes."""
    rows, cols = source.shape[-2:]
    size, kind = rows * cols * source.element_size(), KINDS[source.dtype]
    here, there, scales = source.data_ptr(), out.data_ptr(), 0 if scale is None else scale.data_ptr()
    count = source.numel() // (rows * cols)
    return [Matrix(here + n * size, there + n * out_size, scales + n * scale_size, rows, cols, kind) for n in range(count)]


@dataclass(frozen=True, slots=True)
class Plan:
    """The launches of one call, laid out and not yet made."""

    launches: list[tuple[list[int], Launch]]
    """Of the matrices of these numbers each."""
    start: Callable[[Launch], None]
    held: Sequence[Tensor]
    """What the kernels read: some of it may have been made for them."""
    stats: bool

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.held[0].device

    def go(self) -> None:
        """Launch the kernels that quantise."""
        with on(self.device):
            for _, launch in self.launches:
                self.start(launch)

    def seen(self) -> Seen:
        """Return what the kernels saw, in the order of the matrices; after `go`."""
        sums = [torch.zeros(len(numbers), SUMS, dtype=torch.float64, device=self.device) for numbers, _ in self.launches]
        if self.stats:
            with on(self.device):
                for (numbers, launch), found in zip(self.launches, sums, strict=True):
                    table, per = launch.found[0], launch.found[2]
                    common_kernels.totals[(len(numbers),)](table, launch.partial, found, per, launch.how, TOTAL_CHUNK, **EXACT)
        bad, every = torch.cat([launch.bad for _, launch in self.launches]), torch.cat(sums)
        if len(self.launches) > 1:
            order = [number for numbers, _ in self.launches for number in numbers]
            # Where each matrix is among the launches' results, copied without waiting.
            places = torch.from_numpy(np.argsort(np.asarray(order)))
            there = places.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else places
            bad, every = bad[there], every[there]
        return Seen(bad == 0, every[:, 0], every[:, 1])


def plan(
    sources: Sequence[Tensor], matrices: Sequence[Matrix], hows: Sequence[tuple[How, Tile]], programs: Callable[[Matrix, Class], int],
    stats: bool, start: Callable[[Launch], None],
) -> Plan:  # fmt: skip
    """Lay out what there is to do with the matrices of `sources`, a launch a class; `programs` of each matrix, `start` launches one."""
    device, launches = sources[0].device, []
    for kind, numbers in classes(matrices, hows).items():
        for alike in by_shape(matrices, numbers):
            mine = [matrices[n] for n in alike]
            counts = [programs(matrix, kind) for matrix in mine]
            bad = torch.zeros(len(mine), dtype=torch.int32, device=device)
            partial = torch.empty(sum(counts) if stats else 1, SUMS, dtype=torch.float64, device=device)
            how, found = _found(mine, counts, device)
            launches.append((alike, Launch(kind, mine, how, found, sum(counts), bad, partial)))
    return Plan(launches, start, sources, stats)


def _found(mine: Sequence[Matrix], counts: Sequence[int], device: torch.device) -> tuple[int, tuple[Tensor | int, ...]]:
    """Return how the programs of a launch find their weight, and the arguments that say so."""
    first = mine[0]
    if any((m.rows, m.cols) != (first.rows, first.cols) for m in mine):
        table, owner = upload([row_of(m) for m in mine], counts, device)
        return 0, (table, owner, 1, 0, 0, 0, 0, 0, 0, 0, 0)
    size = (counts[0], first.rows, first.cols)
    strides = steps(mine)
    if strides is None:
        table, owner = upload([row_of(m) for m in mine], [0] * len(mine), device)
        return 1, (table, owner, *size, 0, 0, 0, 0, 0, 0)
    nothing = torch.empty(2, dtype=torch.int64, device=device)
    source, out, scales = strides
    return 2, (nothing, nothing.view(torch.int32), *size, first.source, source, first.out, out, first.scales, scales)
