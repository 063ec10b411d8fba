"""What an engine says it can do beyond the core, keyed by `engine.can`: an engine without an ability has no such test."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tests.contract.rollout_bench import CASES, ENGINES, FREE, Bench, bench, drawn, request_of, requests, served_tensors

from lprl_workload.data import Completion, GenerationRequest, SamplingParams
from lprl_workload.episode import token_ids
from lprl_workload.rollout.engine import mildest_pause
from lprl_workload.rollout.requests import Ability, Chunk

LONG = SamplingParams(1.0, 1.0, None, 400)
"""Long enough to be met in the middle, however fast an engine is."""


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def able(tmp_path: Path, ability: Ability) -> list[Bench]:
    """The engines that can, of a small dense model."""
    made = [bench(tmp_path / name, name, context_length=500) for name in ENGINES]
    found = [one for one in made if ability in one.engine.can]
    assert found or "torch" not in ENGINES, f"no engine says that it can {ability}: its tests would test nothing"
    return found


def bits(completions: Sequence[Completion]) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    return [(tuple(c.response_ids.tolist()), tuple(c.logprobs.tolist())) for c in completions]


def test_seed_exact_the_same_requests_in_the_same_order_give_the_same_bits(tmp_path: Path) -> None:
    for made in able(tmp_path, "seed-exact"):
        made.push(0)
        asked = requests(6)
        assert bits(drawn(made.engine, asked, FREE)) == bits(drawn(made.engine, asked, FREE))


@pytest.mark.parametrize(("engine", "architecture", "fmt"), CASES)
def test_batch_invariant_a_response_depends_on_its_request_alone_bit_for_bit(
    tmp_path: Path, engine: str, architecture: str, fmt: str
) -> None:
    made = bench(tmp_path, engine, architecture, fmt)
    if "batch-invariant" not in made.engine.can:
        return
    made.push(0)
    rng = random.Random(7)
    asked = requests(9) + [GenerationRequest(token_ids([rng.randrange(3, 48) for _ in range(n)]), n) for n in (31, 32, 33, 50)]
    want = dict(zip((r.key for r in asked), bits(drawn(made.engine, asked, FREE)), strict=True))
    mixed = asked[:]
    rng.shuffle(mixed)
    assert [want[r.key] for r in mixed] == bits(drawn(made.engine, mixed, FREE)), "order"
    assert [want[r.key] for r in asked[5:8]] == bits(drawn(made.engine, asked[5:8], FREE)), "few"
    assert [want[r.key] for r in asked[::7]] == [bits(drawn(made.engine, [r], FREE))[0] for r in asked[::7]], "alone"
    small = bench(tmp_path, engine, architecture, fmt, max_concurrency=3)
    small.push(0)
    assert [want[r.key] for r in asked] == bits(drawn(small.engine, asked, FREE)), "three at a time"


def test_batch_invariant_neighbours_of_other_sampling_and_other_moments_change_nothing(tmp_path: Path) -> None:
    for made in able(tmp_path, "batch-invariant"):
        made.push(0)
        asked = requests(6, 2)
        greedy = SamplingParams(0.0, 1.0, None, 7)
        want = bits(drawn(made.engine, asked, FREE))

        async def late(made: Bench = made, asked: list[GenerationRequest] = asked, greedy: SamplingParams = greedy) -> list[list[Chunk]]:
            async def read(number: int, params: SamplingParams) -> list[Chunk]:
                await asyncio.sleep(0.003 * number)
                return [c async for c in made.engine.generate(request_of(asked[number], params, f"{number}{params.temperature}"))]

            others = [asyncio.ensure_future(read(n, greedy)) for n in range(len(asked))]
            found = await asyncio.gather(*(read(n, FREE) for n in range(len(asked))))
            await asyncio.gather(*others)
            return found

        found = asyncio.run(late())
        assert [[i for c in chunks for i in c.ids.tolist()] for chunks in found] == [list(ids) for ids, _ in want]
        assert [[p for c in chunks for p in c.logprobs.tolist()] for chunks in found] == [list(logprobs) for _, logprobs in want]


def test_in_place_pause_goes_on_under_new_weights_with_the_version_of_every_token(tmp_path: Path) -> None:
    for made in able(tmp_path, "in-place-pause"):
        made.push(0)
        newer = served_tensors(made.folder, made.fmt, made.shape, 7.0)

        async def go(made: Bench = made, newer: list = newer) -> list[list[Chunk]]:  # type: ignore[type-arg]
            async def read(number: int, asked: GenerationRequest) -> list[Chunk]:
                return [c async for c in made.engine.generate(request_of(asked, LONG, str(number)))]

            reading = [asyncio.ensure_future(read(n, r)) for n, r in enumerate(requests(6, 1))]
            while not (await made.engine.state()).running:
                await asyncio.sleep(0.001)
            await made.engine.pause("in-place")
            held = await made.engine.state()
            made.push(1, newer)
            assert (await made.engine.state()).running == held.running
            await made.engine.resume()
            return list(await asyncio.gather(*reading))

        found = asyncio.run(go())
        spans = [[c.version for c in chunks if len(c.ids)] for chunks in found]
        assert all(versions == sorted(versions) for versions in spans)
        assert any(versions[0] == 0 and versions[-1] == 1 for versions in spans), spans
        assert all(chunks[-1].finish in ("stop", "length") for chunks in found)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_paused_engine_takes_requests_without_weights_and_draws_them_with_those_that_come(tmp_path: Path, engine: str) -> None:
    """As one that replaces a lost one while others generate; also when a push was given up and is sent again."""
    made = bench(tmp_path, engine)

    async def drawn_late(name: str, asked: GenerationRequest) -> list[Chunk]:
        return [chunk async for chunk in made.engine.generate(request_of(asked, FREE, name))]

    async def run() -> list[Chunk]:
        await made.engine.pause(mildest_pause(made.engine.can))
        tasks = [asyncio.create_task(drawn_late("before", requests(1)[0]))]
        await asyncio.sleep(0)
        made.engine.begin_update(3)
        made.engine.abort_update("a peer died")
        tasks.append(asyncio.create_task(drawn_late("broken", requests(1)[1])))
        await asyncio.sleep(0)
        made.push(4)
        assert not any(task.done() for task in tasks)
        await made.engine.resume()
        return [chunk for task in tasks for chunk in await task]

    chunks = asyncio.run(run())
    assert {chunk.version for chunk in chunks} == {4}
    assert sum(chunk.finish in ("stop", "length") for chunk in chunks) == 2
