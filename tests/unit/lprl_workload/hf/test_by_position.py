"""Chunks and temperatures of Llama 4 by the positions tokens have, wherever their rows begin; the whole family: tests/zoo."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.zoo.families import Case
from tests.zoo.tiny import save, tiny_model
from tests.zoo.trained import CLOSE, filled, logprobs, own

from lprl_api.model.config_file import shape_of
from lprl_workload.data import SamplingParams
from lprl_workload.episode import TrainSample
from lprl_workload.hf.attend import Attention
from lprl_workload.hf.by_position import Temperature, last_chunk
from lprl_workload.hf.packed_attention import Families, families
from lprl_workload.rollout.generation import Row, StopRule
from lprl_workload.rollout.requests import Request
from lprl_workload.rollout.scheduler import Scheduler
from lprl_workload.train.batch import collate
from lprl_workload.train.policy import Policy

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


@pytest.mark.parametrize("how", [Attention(chunk=CHUNK), Attention(window=CHUNK)], ids=["chunk", "window"])
@pytest.mark.parametrize("prompt", [3, 4, 6, 7, 8])
def test_a_continuation_of_one_token_sees_no_more_than_it_does_in_the_whole(how: Attention, prompt: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(prompt + 3, 1, 8, generator=generator) for _ in range(3))
    block = families(1, prompt, [1, 1, 1], torch.device("cpu"))
    found = block.attend(list(zip(*(x.split([prompt, 3]) for x in (q, k, v)), strict=True)), how)
    for row in range(prompt, prompt + 3):
        own = [torch.cat([x[:prompt], x[row : row + 1]]).transpose(0, 1)[None] for x in (q, k, v)]
        torch.testing.assert_close(found[1][row - prompt], how.product(*own)[0, :, -1])


def test_a_temperature_goes_by_each_tokens_position() -> None:
    factor = Temperature(floor=4, scale=0.5).factor(torch.tensor([[0, 2, 3, 7], [7, 3, 2, 0]]))
    wanted = torch.tensor([1.0, 1.0, 1 + 0.5 * torch.log(torch.tensor(2.0)), 1 + 0.5 * torch.log(torch.tensor(3.0))])
    torch.testing.assert_close(factor[0, 0, :, 0], wanted)
    torch.testing.assert_close(factor[1, 0, :, 0], wanted.flip(0))


def drawn(model: object, prompts: list[np.ndarray], tokens: int) -> list[Row]:
    """Return rows whose `tokens` tokens an engine drew behind `prompts`."""
    sampling, never = SamplingParams(1.0, 1.0, None, tokens), StopRule(frozenset(), (), str)
    rows = [Row(Request(str(n), prompt, sampling, n), tokens, never) for n, prompt in enumerate(prompts)]
    scheduler = Scheduler(model, torch.device("cpu"), len(rows), 10**9, 4)
    for row in rows:
        scheduler.add(row)
    while scheduler.running or scheduler.waiting:
        scheduler.step()
    return rows


def test_answers_of_two_tokens_behind_prompts_longer_than_a_chunk_are_trained_as_they_were_served(tmp_path: Path) -> None:
    case = Case("llama4_text", "", {"num_hidden_layers": 4, "attention_chunk_size": 8, "floor_scale": 4})
    source = save(tiny_model(case.model_type, case.changes), tmp_path / "source")
    model, plain = filled(source, shape_of(json.loads((source / "config.json").read_text()), "config.json")), own(case, source)
    prompts = [np.array([5 + n * 7 % 150 for n in range(length)], np.int32) for length in (8, 13, 20) for _ in range(3)]
    with torch.no_grad():
        rows = drawn(model, prompts, 2)
        wanted = [logprobs(plain, [*row.request.prompt, *row.tokens])[-2:] for row in rows]
        samples = [
            TrainSample(
                np.array([*row.request.prompt, *row.tokens], np.int32),
                np.arange(len(row.request.prompt) + 2) >= len(row.request.prompt),
                np.zeros(2, np.float32),
                np.zeros(2, np.float32),
            )
            for row in rows
        ]
        batch = collate(samples, torch.device("cpu"))
        trained = batch.spread(Policy(model, recompute=False)(batch, 1.0, entropy_gradient=False)[0])
    assert [block.continuations.width for block in batch.layout if isinstance(block, Families)] == [1, 1, 1]
    torch.testing.assert_close(torch.tensor([row.logprobs for row in rows]), torch.stack(wanted), **CLOSE)
    torch.testing.assert_close(trained, torch.stack(wanted), **CLOSE)
