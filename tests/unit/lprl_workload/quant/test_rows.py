"""A weight cut into rows among ranks: each rank's own, without the others' weights, are the whole's to the bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lprl_api.model.formats import Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_workload.quant.rows import fake_quantize_rows
from lprl_workload.quant.scheme import fake_quantize

FORMATS = [Fp8Block(), Fp8Channel(), Fp8Tensor(), Int4Group(group_size=32)]


def each_ranks(weight: Tensor, fmt: WeightFormat, world: int) -> tuple[list[Tensor], int]:
    """What every rank makes of its rows, and how many numbers they exchanged."""
    total = weight.shape[0]
    share = -(-total // world)
    cuts = [(min(total, rank * share), min(total, (rank + 1) * share)) for rank in range(world)]
    told: list[Tensor] = []

    def listen(largest: Tensor) -> Tensor:
        told.append(largest.clone())
        return largest

    def together(largest: Tensor) -> Tensor:
        return largest.copy_(torch.stack(told).amax(0))

    for first, last in cuts:
        fake_quantize_rows(weight[first:last], fmt, first, total, share, listen)
    assert len(told) in (0, world), "all ranks take part, or none"
    exchanged = told[0].numel() if told else 0
    return [fake_quantize_rows(weight[first:last], fmt, first, total, share, together) for first, last in cuts], exchanged


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.kind)
@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 400), cols=st.sampled_from([32, 96, 160, 256]), world=st.integers(1, 5), seed=st.integers(0, 99))
def test_rows_of_every_rank_are_those_of_the_whole(fmt: WeightFormat, rows: int, cols: int, world: int, seed: int) -> None:
    made = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, cols, generator=made) * torch.exp(3 * torch.randn(rows, 1, generator=made))
    found, _ = each_ranks(weight, fmt, world)
    assert torch.equal(torch.cat(found).float(), fake_quantize(weight, fmt).float())


@pytest.mark.parametrize(
    ("fmt", "rows", "world", "exchanged"),
    [(Fp8Block(), 512, 2, 0), (Fp8Block(), 384, 2, 6), (Fp8Channel(), 333, 2, 0), (Fp8Tensor(), 333, 2, 1), (Int4Group(), 333, 2, 0)],
)
def test_ranks_exchange_a_number_a_tile_and_nothing_where_no_tile_reaches_over_two(
    fmt: WeightFormat, rows: int, world: int, exchanged: int
) -> None:
    found, numbers = each_ranks(torch.randn(rows, 256), fmt, world)
    assert numbers == exchanged and sum(map(len, found)) == rows
