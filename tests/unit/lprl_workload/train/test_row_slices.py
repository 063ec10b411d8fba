"""Checkpoint tensors that are some rows of a parameter (Kimi-Linear's convolutions): filled and read once, on any number of ranks."""

import pytest
import torch

from lprl_workload.hf.slots import WeightSlot
from lprl_workload.train.build import fill
from lprl_workload.train.source import cut_rows

ROWS = 12
CUTS = ((0, 4), (4, 8), (8, 12))


@pytest.mark.parametrize("world", [1, 2, 3, 4, 5, 7, 12])
def test_ranks_take_their_rows_of_each_tensor_and_give_them_back(world: int) -> None:
    whole, chunk = torch.arange(ROWS * 4.0).view(ROWS, 1, 4), -(-ROWS // world)
    parameter = torch.zeros_like(whole)
    slots = [
        WeightSlot(f"{n}_conv1d.weight", "conv1d.weight", (slice(*cut),), (4, 1, 4), parameter) for n, cut in zip("qkv", CUTS, strict=True)
    ]
    assert [slot.rows for slot in slots] == list(CUTS)
    parts = {rank: torch.full((len(whole[rank * chunk : (rank + 1) * chunk]), 1, 4), -1.0) for rank in range(world)}
    for slot, (start, stop) in zip(slots, CUTS, strict=True):
        for rank, part in parts.items():
            fill(part, rank * chunk, slot, whole[start:stop])
    assert torch.equal(torch.cat(list(parts.values())), whole)
    for start, stop in CUTS:
        read = [parts[rank][low - rank * chunk : high - rank * chunk] for rank, low, high in cut_rows(start, stop, chunk)]
        assert torch.equal(torch.cat(read), whole[start:stop]) and all(len(rows) for rows in read)


def test_the_same_rows_of_all_experts_are_taken_expert_by_expert() -> None:
    whole = torch.arange(5 * 4 * 3.0).view(5, 4, 3)
    slots = [
        WeightSlot(name, "gate_up_proj", (slice(0, 5), slice(*rows)), (5, 2, 3), whole) for name, rows in (("gate", (0, 2)), ("up", (2, 4)))
    ]
    part = torch.full((2, 4, 3), -1.0)
    for slot in slots:
        assert slot.rows == (0, 5)
        fill(part, 3, slot, slot.read())
    assert torch.equal(part, whole[3:5])


def test_a_slot_of_a_whole_parameter_or_of_an_expert_has_no_rows() -> None:
    tensor = torch.zeros(4, 2, 3)
    assert WeightSlot("a", "a", (), (4, 2, 3), tensor).rows is None
    assert WeightSlot("a", "a", (1,), (2, 3), tensor).rows is None
    assert WeightSlot("a", "a", (1, slice(0, 1)), (1, 3), tensor).rows is None
