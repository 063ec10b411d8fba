"""A checksum of a tensor's bytes, computed on the device that holds them, additive over the pieces of a tensor.

    checksum(T) = sum over elements i of bits(T_i) * weight(i)   modulo 2^64

bits are the element's bytes as an integer, i its position in the whole tensor, weight(i) an odd number mixed from i. One flipped bit
always changes the sum, and so do, but for one chance in about 2^60, exchanged elements, rows or tensors. Because it is a sum, the pieces
several ranks hold add up to the checksum of the tensor they form, whatever the order: nothing has to be moved to compute it.

It finds mistakes and broken hardware, not an adversary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lprl_workload.quant.triton.available import usable
from lprl_workload.quant.triton.work import count_runs

CHUNK_ELEMENTS = 1 << 22
"""Elements summed at a time: bounds the 8 bytes an element that the integers take."""
MOST_RUNS = 1 << 16
"""Of a piece, for the kernel; one that lies in more of them in the whole is summed with PyTorch."""
_FIRST, _SECOND = 0x9E3779B97F4A7C15 - (1 << 64), 0xBF58476D1CE4E5B9 - (1 << 64)
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _weights(position: Tensor) -> Tensor:
    mixed = position * _FIRST
    mixed = (mixed ^ (mixed >> 29)) * _SECOND
    return (mixed ^ (mixed >> 32)) | 1


def _positions(shape: Sequence[int], whole: Sequence[int], offset: Sequence[int], device: torch.device) -> Tensor:
    """Return the position of every element of a piece in the whole tensor, int64 of the piece's shape."""
    found = torch.zeros((1,) * len(shape), dtype=torch.int64, device=device)
    stride = 1
    for dimension in reversed(range(len(shape))):
        along = (torch.arange(shape[dimension], device=device) + offset[dimension]) * stride
        found = found + along.view(-1, *(1,) * (len(shape) - 1 - dimension))
        stride *= whole[dimension]
    return found


def checksum(piece: Tensor, whole: Sequence[int] | None = None, offset: Sequence[int] | None = None) -> Tensor:
    """Return the checksum of `piece`, an int64 scalar on its device; nothing waits for the device.

    Args:
        piece: a tensor, or the part of one that begins at `offset`.
        whole: shape of the tensor it is part of; default its own.
        offset: where the piece begins, per dimension; default the beginning.

    """
    values = piece.detach().contiguous().view(_INTEGERS[piece.element_size()]) if piece.ndim else piece.detach().view(1)
    if not piece.ndim:
        return checksum(values)
    whole, start = tuple(whole or piece.shape), list(offset or (0,) * piece.ndim)
    if usable(values) and count_runs(piece.shape, whole) <= MOST_RUNS:
        from lprl_workload.quant.triton import sums

        return sums.checksums([(values, whole, start)])[0]
    total = torch.zeros((), dtype=torch.int64, device=piece.device)
    rows = max(1, CHUNK_ELEMENTS // max(1, values[:1].numel()))
    for first in range(0, values.shape[0], rows):
        part = values[first : first + rows]
        position = _positions(part.shape, whole, [start[0] + first, *start[1:]], piece.device)
        total = total + (part.to(torch.int64) * _weights(position)).sum()
    return total


def checksums(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the checksums of whole tensors; of those on a GPU by one launch for each size of element."""
    device = next((tensor.device for tensor in tensors if usable(tensor)), None)
    together = [number for number, tensor in enumerate(tensors) if tensor.device == device and tensor.numel()]
    found: dict[int, Tensor] = {}
    if together:
        from lprl_workload.quant.triton import sums

        pieces = [tensors[number].detach().contiguous() for number in together]
        found = dict(zip(together, sums.checksums([(p, p.shape, [0] * p.ndim) for p in pieces]).unbind(), strict=True))
    return [found[number] if number in found else checksum(tensor) for number, tensor in enumerate(tensors)]
