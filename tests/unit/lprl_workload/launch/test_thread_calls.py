"""Real engines of one process, dealt to in any way: the same bits, also when one is gone in the middle of a response."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lprl_api.model.formats import Bf16
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_fixtures.shape import model_shape
from lprl_workload.data import GenerationRequest, SamplingParams
from lprl_workload.episode import Episode, EpisodeRef, token_ids
from lprl_workload.launch.local import LocalRolloutGroup
from lprl_workload.process.errors import EngineLostError
from lprl_workload.rollout.engine_torch import TorchEngine
from lprl_workload.rollout.requests import Chunk, Request

FREE = SamplingParams(1.0, 1.0, None, 12)


class Mortal:
    """A real engine that is gone after it has given so many chunks."""

    def __init__(self, engine: TorchEngine, chunks: int = 10**9) -> None:
        self.engine, self.left, self.ended = engine, chunks, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        async for chunk in self.engine.generate(request):
            for piece in halves(chunk):
                if self.left <= 0:
                    raise EngineLostError(0, "killed")
                self.left -= 1
                yield piece
        self.ended += 1

    def close(self) -> None:
        pass


def halves(chunk: Chunk) -> list[Chunk]:
    """The same tokens in two chunks, so that an engine can die in the middle of a response."""
    cut = len(chunk.ids) // 2
    first, last = (chunk.ids[:cut], chunk.logprobs[:cut]), (chunk.ids[cut:], chunk.logprobs[cut:])
    return [Chunk(*first, chunk.version, None), Chunk(*last, chunk.version, chunk.finish)]


class Keeper:
    """Brings the group's engines back when none is left."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []
        self.group: LocalRolloutGroup

    def lost(self, error: EngineLostError, left: int) -> None:
        self.told.append((error.engine, left))

    def none_left(self) -> None:
        assert self.group.replace_lost() == [0] and self.group.living == 0
        self.group.admit()


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[TorchEngine]]:
    torch.set_num_threads(1)
    folder: Path = tmp_path_factory.mktemp("model")
    generate_model(folder, ModelOptions("qwen3", "tiny", seed=3))
    shape = model_shape(json.loads((folder / "config.json").read_text()))
    made = [TorchEngine(folder, Bf16(), shape, context_length=64) for _ in range(2)]
    for engine in made:
        engine.load_folder()
    yield made
    for engine in made:
        engine.close()


ASKED = [GenerationRequest(token_ids([3 + n // 2, 9]), 100 + n, n // 2, n // 2, n % 2) for n in range(12)]


def drawn(keeper: Keeper, *members: Mortal, rows: int = 3) -> list[EpisodeRef]:
    """Episodes of a group of these engines; whoever is built later is the last of them again, alive."""
    waiting: list[Any] = [*members, Mortal(members[-1].engine)]
    keeper.group = LocalRolloutGroup(lambda fmt: waiting.pop(0), len(members), Bf16(), rows=rows)
    keeper.group.admit()
    return keeper.group.generate(ASKED, FREE, keeper)


def bits(found: list[EpisodeRef]) -> list[tuple[int, int, list[int], list[float]]]:
    episodes: list[Episode] = [ref.ref for ref in found]
    return [(e.prompt, e.sample, e.ids.tolist(), e.logprobs.tolist()) for e in episodes]


@pytest.fixture(scope="module")
def wanted(engines: list[TorchEngine]) -> list[Any]:
    return bits(drawn(Keeper(), Mortal(engines[0])))


def test_two_engines_share_the_groups_and_draw_what_one_draws(engines: list[TorchEngine], wanted: list[Any]) -> None:
    one, two = Mortal(engines[0]), Mortal(engines[1])
    found = drawn(Keeper(), one, two)
    assert bits(found) == wanted and [(ref.prompt, ref.sample) for ref in found] == [(n // 2, n % 2) for n in range(12)]
    assert one.ended and two.ended and one.ended + two.ended == 12
    assert {ref.engine for ref in found} == {0, 1}


@pytest.mark.parametrize("chunks", [0, 1, 4, 7])
def test_an_engine_that_dies_gives_its_open_groups_to_others_and_the_bits_are_the_same(
    engines: list[TorchEngine], wanted: list[Any], chunks: int
) -> None:
    keeper = Keeper()
    assert bits(drawn(keeper, Mortal(engines[0], chunks), Mortal(engines[1]))) == wanted
    assert keeper.told == [(0, 1)], "told once, however many groups were open"


def test_without_any_engine_the_rest_waits_for_a_replacement(engines: list[TorchEngine], wanted: list[Any]) -> None:
    keeper = Keeper()
    assert bits(drawn(keeper, Mortal(engines[0], 3))) == wanted
    assert keeper.told == [(0, 0)]


def test_an_error_that_is_no_loss_ends_the_generation(engines: list[TorchEngine]) -> None:
    group = LocalRolloutGroup(lambda fmt: Mortal(engines[0]), 1, Bf16())  # type: ignore[arg-type,return-value]
    group.admit()
    with pytest.raises(Exception, match="leaves no room in a context of 64"):
        group.generate([*ASKED, replace(ASKED[0], prompt_ids=token_ids([1] * 64), group=9)], FREE, Keeper())
