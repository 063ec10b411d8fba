"""How what other threads draw reaches the loop that waits for it."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lprl_workload.rollout.requests import Chunk
from lprl_workload.rollout.responses import Sink, stream

STREAMS, CHUNKS = 4, 25


class Counting(asyncio.SelectorEventLoop):
    """Counts how often other threads wake it."""

    woken = 0

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any, **named: Any) -> asyncio.Handle:
        self.woken += 1
        return super().call_soon_threadsafe(callback, *args, **named)


def chunk(number: int) -> Chunk:
    return Chunk(np.array([number], np.int32), np.zeros(1, np.float32), 0, "length" if number == CHUNKS - 1 else None)


def test_a_loop_is_woken_once_for_everything_that_comes_while_it_is_busy() -> None:
    sinks: list[Sink] = []
    loop = Counting()

    async def read() -> list[int]:
        return [int(found.ids[0]) async for found in stream(sinks.append, lambda: None)]

    async def run() -> list[list[int]]:
        reading = [asyncio.ensure_future(read()) for _ in range(STREAMS)]
        await asyncio.sleep(0)
        drawing = threading.Thread(target=lambda: [sink(chunk(number)) for number in range(CHUNKS) for sink in sinks])
        drawing.start()
        drawing.join()
        return list(await asyncio.gather(*reading))

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        assert runner.run(run()) == [list(range(CHUNKS))] * STREAMS
    assert loop.woken == 1


def test_a_loop_that_is_closed_says_so_to_who_hands_something_over() -> None:
    sinks: list[Sink] = []

    async def given_up() -> None:
        reading = asyncio.ensure_future(anext(stream(sinks.append, lambda: None)))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])

    asyncio.run(given_up())
    with pytest.raises(RuntimeError, match="closed"):
        sinks[0](chunk(0))
