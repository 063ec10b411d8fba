"""Checksums on a GPU: the numbers of sync/checksum.py, all tensors of a bucket in one launch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lprl_workload.quant.triton import sums_kernels
from lprl_workload.quant.triton.launch import EXACT, Row, on, upload
from lprl_workload.quant.triton.work import ALIGNMENT, runs

CHUNK = 4096
"""Elements a program sums."""
Piece = tuple[Tensor, Sequence[int], Sequence[int]]
"""A contiguous tensor, the shape of the tensor it is part of, and where in it it begins."""


def checksum(tensor: Tensor) -> Tensor:
    """Return the checksum of a whole tensor, an int64 scalar on its device."""
    return checksums([(tensor, tensor.shape, [0] * tensor.ndim)])[0]


def checksums(pieces: Sequence[Piece]) -> Tensor:
    """Return the checksums of pieces on one device, int64 [pieces]; nothing waits for the device."""
    device = pieces[0][0].device
    found = torch.zeros(len(pieces), dtype=torch.int64, device=device)
    by_kind: dict[tuple[int, bool], list[Row]] = {}
    for number, (piece, whole, offset) in enumerate(pieces):
        size, address = piece.element_size(), piece.data_ptr()
        for first, length, position in runs(piece.shape, whole, offset):
            at = address + first * size
            kind = (size, (at | length) % ALIGNMENT == 0)
            by_kind.setdefault(kind, []).append((at, 0, number, 1, length, position))
    with on(device):
        for (size, aligned), rows in by_kind.items():
            programs = [-(-row[4] // CHUNK) for row in rows]
            table, owner = upload(rows, programs, device)
            sums_kernels.checksums[(sum(programs),)](table, owner, found, size, CHUNK, aligned, num_warps=4, **EXACT)
    return found
