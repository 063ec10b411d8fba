"""Chunks and temperatures of Llama 4 by the positions tokens have, wherever their rows begin; the whole family: tests/zoo."""

import torch

from lprl_workload.hf.attend import Attention
from lprl_workload.hf.by_position import Temperature, last_chunk

CHUNK = 4


def seen(first: int, last: int) -> torch.Tensor:
    """Return which keys [last] each of the queries [first, last) sees, one by one."""
    return torch.tensor([[key <= query and key // CHUNK == query // CHUNK for key in range(last)] for query in range(first, last)])


def test_a_query_sees_its_own_chunk_alone_also_behind_a_prompt() -> None:
    generator = torch.Generator().manual_seed(0)
    k, v = (torch.randn(2, 1, 10, 8, generator=generator) for _ in range(2))
    for first in (0, 3, 6, 9):
        q = torch.randn(2, 2, 10 - first, 8, generator=generator)
        mask = torch.zeros(10 - first, 10).masked_fill_(torch.arange(10) > torch.arange(first, 10)[:, None], -torch.inf)
        if first == 9:  # a token that is drawn: its row's mask says where it stands
            mask = last_chunk(mask[None, None], CHUNK)
        found = Attention(chunk=None if first == 9 else CHUNK).product(q, k, v, None if first == 0 else mask)
        scores = (q @ k.transpose(2, 3) / 8**0.5).masked_fill(~seen(first, 10), -torch.inf)
        torch.testing.assert_close(found, scores.softmax(-1) @ v)


def test_drawn_tokens_of_rows_at_several_positions_see_their_chunks() -> None:
    columns = torch.tensor([0, 3, 4, 9])
    mask = torch.zeros(4, 1, 1, 16).masked_fill_(torch.arange(16) > columns[:, None, None, None], -torch.inf)
    found = (last_chunk(mask, CHUNK) == 0)[:, 0, 0]
    assert [row.nonzero().flatten().tolist() for row in found] == [[0], [0, 1, 2, 3], [4], [8, 9]]


def test_a_temperature_goes_by_each_tokens_position() -> None:
    factor = Temperature(floor=4, scale=0.5).factor(torch.tensor([[0, 2, 3, 7], [7, 3, 2, 0]]))
    wanted = torch.tensor([1.0, 1.0, 1 + 0.5 * torch.log(torch.tensor(2.0)), 1 + 0.5 * torch.log(torch.tensor(3.0))])
    torch.testing.assert_close(factor[0, 0, :, 0], wanted)
    torch.testing.assert_close(factor[1, 0, :, 0], wanted.flip(0))
