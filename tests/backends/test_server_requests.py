"""What becomes of the requests of a real server: taken back and gone on with, drawn by many threads, and when it is killed."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from tests.contract.rollout_bench import bench, drawn, request_of, requests, served_tensors

from lprl_workload.data import GenerationRequest, SamplingParams
from lprl_workload.episode import token_ids
from lprl_workload.process.errors import ServerLostError
from lprl_workload.rollout.requests import Chunk
from lprl_workload.rollout.sglang.arguments import KEEP_ALIVE_S
from lprl_workload.rollout.sglang.client import KEPT_S

LONG = SamplingParams(1.0, 1.0, None, 400)


def test_responses_that_many_threads_draw_while_each_of_them_pauses_and_goes_on_all_end(tmp_path: Path) -> None:
    """As lots of a batch are, each drawn by a thread and a loop of its own."""
    made = bench(tmp_path, "sglang")
    made.push(0)
    short = SamplingParams(1.0, 1.0, None, 6)

    async def lot(number: int) -> int:
        await made.engine.pause("in-place" if number % 2 else "retract")
        streams = [made.engine.generate(request_of(one, short, f"{number}/{n}")) for n, one in enumerate(requests(3, 2))]

        async def read(stream: AsyncIterator[Chunk]) -> list[Chunk]:
            return [chunk async for chunk in stream]

        reading = [asyncio.ensure_future(read(stream)) for stream in streams]
        await asyncio.sleep(0)
        await made.engine.resume()
        done = await asyncio.gather(*reading)
        assert all(chunks[-1].finish in ("stop", "length") for chunks in done)
        return len(done)

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: asyncio.run(lot(number)), range(24)))
    assert sum(found) == 24 * 6
    made.done()


def test_a_response_that_is_taken_back_goes_on_behind_what_it_drew_under_the_new_weights(tmp_path: Path) -> None:
    """Also how requests of releases that do not name weights get over a push."""
    made = bench(tmp_path, "sglang", context_length=500)
    made.push(0)
    newer = served_tensors(made.folder, made.fmt, made.shape, 7.0)

    async def go() -> list[list[Chunk]]:
        async def read(number: int) -> list[Chunk]:
            return [c async for c in made.engine.generate(request_of(requests(6, 1)[number], LONG, str(number)))]

        reading = [asyncio.ensure_future(read(number)) for number in range(6)]
        while not (await made.engine.state()).running:
            await asyncio.sleep(0.001)
        await made.engine.pause("retract")
        state = await made.engine.state()
        assert state.running == 0 and state.waiting == sum(not one.done() for one in reading)
        made.push(1, newer)
        await made.engine.resume()
        return list(await asyncio.gather(*reading))

    found = asyncio.run(go())
    spans = [[c.version for c in chunks if len(c.ids)] for chunks in found]
    assert any(versions[0] == 0 and versions[-1] == 1 for versions in spans), spans
    for chunks in found:
        ids = [i for c in chunks for i in c.ids.tolist()]
        assert chunks[-1].finish == ("stop" if ids[-1] == 1 else "length") and 1 not in ids[:-1]
        assert chunks[-1].finish == "stop" or len(ids) == LONG.max_response_tokens
    made.done()


def test_an_idle_connection_is_given_up_before_the_server_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a request that is on its way just then breaks, and the engine counts as lost."""
    from sglang.srt.environ import envs

    assert envs.SGLANG_TIMEOUT_KEEP_ALIVE.get() >= 2 * KEPT_S, "of a server that is told nothing"
    monkeypatch.setenv("SGLANG_TIMEOUT_KEEP_ALIVE", str(KEEP_ALIVE_S))
    assert envs.SGLANG_TIMEOUT_KEEP_ALIVE.get() == KEEP_ALIVE_S


def test_many_requests_that_set_out_at_once_are_few_of_the_servers_and_each_ends_as_it_should(tmp_path: Path) -> None:
    made = bench(tmp_path, "sglang")
    made.push(0)
    short = SamplingParams(1.0, 1.0, None, 3)

    async def go() -> list[list[Chunk]]:
        async def read(number: int) -> list[Chunk]:
            asked = request_of(requests(8, 1)[number % 8], short, str(number))
            return [chunk async for chunk in made.engine.generate(asked)]

        reading = [asyncio.ensure_future(read(number)) for number in range(150)]
        while not any(one.done() for one in reading):
            await asyncio.sleep(0.001)
        await made.engine.abort(["149"])  # it may have ended
        return list(await asyncio.gather(*reading))

    found = asyncio.run(go())
    for chunks in found[:-1]:
        ids = [i for chunk in chunks for i in chunk.ids.tolist()]
        assert chunks[-1].finish == ("length" if len(ids) == 3 and ids[-1] != 1 else "stop")
    assert found[-1][-1].finish in ("abort", "length", "stop")
    made.done()


def test_a_token_that_is_none_of_the_models_never_reaches_the_server_which_would_end_of_it(tmp_path: Path) -> None:
    made = bench(tmp_path, "sglang")
    made.push(0)
    for token in (made.shape.vocab, -1):
        with pytest.raises(ValueError, match="none of the model's"):
            drawn(made.engine, [GenerationRequest(token_ids([3, token]), 1)], LONG)
    assert len(drawn(made.engine, requests(1), made.free)) == 4
    made.done()


def test_requests_of_a_server_that_is_killed_end_with_its_loss_and_so_does_everything_asked_of_it(tmp_path: Path) -> None:
    made = bench(tmp_path, "sglang", context_length=500)
    engine = made.engine
    made.push(0)
    group = engine._server.process.group

    async def go() -> list[Chunk | BaseException | None]:
        async def read(number: int) -> None:
            async for _ in engine.generate(request_of(requests(6, 1)[number], LONG, str(number))):
                if number == 0:
                    with suppress(ProcessLookupError):
                        os.killpg(group, signal.SIGKILL)  # in the middle of six responses

        return list(await asyncio.gather(*(read(number) for number in range(6)), return_exceptions=True))

    ended = asyncio.run(go())
    assert any(isinstance(error, ServerLostError) and "killed by signal 9" in str(error) for error in ended), ended
    assert all(error is None or isinstance(error, ServerLostError) for error in ended), ended
    assert isinstance(engine.lost(), ServerLostError) and not engine.healthy()
    assert not asyncio.run(engine.state()).alive
    for ask in (lambda: engine.begin_update(1), lambda: asyncio.run(engine.sleep(frozenset({"kv"}))), lambda: engine.probe((3, 4))):
        with pytest.raises(ServerLostError):
            ask()
    engine.close()
    until = time.monotonic() + 180
    while os.path.exists(f"/proc/{group}"):
        assert time.monotonic() < until
        time.sleep(0.05)
