import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import pytest
import torch

from lprl_api.model.formats import Bf16
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_fixtures.shape import model_shape
from lprl_workload.data import SamplingParams
from lprl_workload.episode import token_ids
from lprl_workload.process.errors import EngineLostError
from lprl_workload.rollout.engine_torch import TorchEngine
from lprl_workload.rollout.pool import EnginePool
from lprl_workload.rollout.requests import Chunk, Request

FREE = SamplingParams(1.0, 1.0, None, 12)


class Mortal:
    """A real engine that is gone after it has given so many chunks; it counts what is open at a time."""

    def __init__(self, engine: TorchEngine, chunks: int = 10**9) -> None:
        self.engine, self.left = engine, chunks
        self.open = self.most = self.served = 0

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            async for chunk in self.engine.generate(request):
                for piece in halves(chunk):
                    if self.left <= 0:
                        raise EngineLostError(0, "killed")
                    self.left -= 1
                    yield piece
            self.served += 1
        finally:
            self.open -= 1


def halves(chunk: Chunk) -> list[Chunk]:
    """The same tokens in two chunks, so that an engine can die in the middle of a response."""
    cut = len(chunk.ids) // 2
    first, last = (chunk.ids[:cut], chunk.logprobs[:cut]), (chunk.ids[cut:], chunk.logprobs[cut:])
    return [Chunk(*first, chunk.version, None), Chunk(*last, chunk.version, chunk.finish)]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[TorchEngine]]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("model")
    generate_model(folder, ModelOptions("qwen3", "tiny", seed=3))
    shape = model_shape(json.loads((folder / "config.json").read_text()))
    made = [TorchEngine(folder, Bf16(), shape, context_length=64) for _ in range(2)]
    for engine in made:
        engine.load_folder()
    yield made
    for engine in made:
        engine.close()


def requests() -> list[Request]:
    return [Request(str(n), token_ids([3 + n % 5, 9]), FREE, 100 + n) for n in range(12)]


def bits(responses: list[list[Chunk]]) -> list[tuple[list[int], list[float]]]:
    return [([i for c in r for i in c.ids.tolist()], [p for c in r for p in c.logprobs.tolist()]) for r in responses]


def test_requests_are_shared_within_the_concurrency_and_answered_in_order(engines: list[TorchEngine]) -> None:
    one, two = Mortal(engines[0]), Mortal(engines[1])

    async def go(*members: Mortal) -> list[list[Chunk]]:
        return await EnginePool(members, 3, lambda error: None).complete(requests())

    alone = asyncio.run(go(Mortal(engines[0])))
    both = asyncio.run(go(one, two))
    assert bits(alone) == bits(both)
    assert 1 <= one.most <= 3 and 1 <= two.most <= 3 and one.served + two.served == 12 and one.served and two.served


@pytest.mark.parametrize("chunks", [0, 1, 4, 7])
def test_an_engine_that_dies_gives_its_open_requests_to_others_and_the_bits_are_the_same(engines: list[TorchEngine], chunks: int) -> None:
    losses: list[EngineLostError] = []

    async def go(first: Mortal) -> list[list[Chunk]]:
        return await EnginePool([first, Mortal(engines[1])], 3, losses.append).complete(requests())

    want = bits(asyncio.run(go(Mortal(engines[0]))))
    assert losses == []
    assert bits(asyncio.run(go(Mortal(engines[0], chunks)))) == want
    assert len(losses) == 1, "told once, however many requests were open"


def test_a_response_may_go_on_from_what_a_dead_engine_drew(engines: list[TorchEngine]) -> None:
    async def go(first: Mortal) -> list[list[Chunk]]:
        members = [first, Mortal(engines[1])]
        return await EnginePool(members, 3, lambda error: None, keep_drawn=True).complete(requests())

    want = bits(asyncio.run(go(Mortal(engines[0]))))
    found = bits(asyncio.run(go(Mortal(engines[0], 5))))
    assert [ids for ids, _ in found] == [ids for ids, _ in want]
    for (_, mine), (_, theirs) in zip(found, want, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)


def test_without_any_engine_the_loss_is_raised_and_a_replacement_is_used(engines: list[TorchEngine]) -> None:
    async def go() -> list[list[Chunk]]:
        pool = EnginePool([Mortal(engines[0], 3)], 2, lambda error: None)
        with pytest.raises(EngineLostError, match="no engine is left"):
            await pool.complete(requests())
        await pool.replace(0, engines[0])
        return await pool.complete(requests())

    assert len(asyncio.run(go())) == 12
