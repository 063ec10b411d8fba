"""Quantising a weight whose rows lie on several ranks: each does its own, and the ranks exchange largest magnitudes, never weights.

A scale follows from the largest magnitude of its tile, and a tile may reach over two ranks' rows. So the magnitudes of all tiles (one
float for 16,384 weights, by blocks) are taken together, and a rank that holds a part of a tile adds a row with the whole tile's.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lprl_api.model.formats import WeightFormat
from lprl_workload.quant.scheme import fake_quantize
from lprl_workload.quant.source import rounded, tiles


def fake_quantize_rows(
    rows: Tensor, fmt: WeightFormat, first: int, total: int, share: int, over_ranks: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return rows [first, first + n) of fake_quantize(weight [total, K]), bit for bit, from those rows alone.

    Args:
        rows: [n, K], n >= 0.
        fmt: format.
        first: of these rows.
        total: rows of the weight.
        share: rows of each rank, but for the last ones that have any.
        over_ranks: takes the largest value over the ranks, in place. All ranks call it, or (no tile reaches over two of them) none.

    """
    cols = rows.shape[1]
    high, wide = fmt.tile(total, cols)
    if share % high == 0:
        return fake_quantize(rows, fmt) if rows.shape[0] else rows.float()
    one = high >= total  # a single row of tiles: where in it these rows lie does not matter
    lead = min(1, first) if one else first % high
    placed = torch.nn.functional.pad(rounded(rows), (0, 0, lead, 0))
    last = first + rows.shape[0]
    placed = torch.nn.functional.pad(placed, (0, 0, 0, int(last < total) if one else min(-last % high, total - last)))
    largest = torch.zeros(-(-total // high), -(-cols // wide), dtype=torch.float32, device=rows.device)
    if rows.shape[0]:
        at = slice(first // high, -(-last // high))
        largest[at] = tiles(placed, (placed.shape[0] if one else high, wide)).abs().amax(dim=(-3, -1)).float()
    over_ranks(largest)
    if not rows.shape[0]:
        return rows.float()
    for edge, padded, tile in ((0, lead > 0, first // high), (-1, placed.shape[0] > lead + rows.shape[0], (last - 1) // high)):
        if padded:
            placed[edge] = largest[tile].repeat_interleave(wide)[:cols].to(placed.dtype)
    return fake_quantize(placed, fmt)[lead : lead + rows.shape[0]]
