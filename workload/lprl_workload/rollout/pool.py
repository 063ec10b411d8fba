"""Several engines as one: each request goes to the engine with the fewest open ones, and to another when that one dies.

A response begun on an engine that dies is drawn anew from its first token: with engines that can `seed-exact` and
`batch-invariant` it is then the very same response, wherever it is drawn, so that losing an engine, their number and their speed
change nothing. `keep_drawn` goes on from what was drawn instead: cheaper for long responses, but the tokens drawn before are
prefilled now, whose sums round differently than those of the steps that drew them, so the same bits are not promised.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lprl_workload.process.errors import EngineLostError
from lprl_workload.rollout.engine import Sampler
from lprl_workload.rollout.requests import Chunk, Request


@dataclass(slots=True)
class _Seat:
    engine: Sampler | None
    """None while it is lost."""
    open: int = 0


class EnginePool:
    """Engines of equal weights; all methods belong to one event loop."""

    def __init__(
        self, engines: Sequence[Sampler], concurrency: int, lost: Callable[[EngineLostError], None], keep_drawn: bool = False
    ) -> None:
        """Share requests among `engines`.

        Args:
            engines: by number.
            concurrency: open requests of one engine, at most; the others wait here.
            lost: told of every loss, once: charges a budget, has a replacement made.
            keep_drawn: see the module.

        """
        self._seats = [_Seat(engine) for engine in engines]
        self._concurrency, self._lost, self._keep_drawn = concurrency, lost, keep_drawn
        self._changed = asyncio.Condition()

    async def generate(self, request: Request) -> list[Chunk]:
        """Return all chunks of one response.

        Raises:
            EngineLostError: no engine is left.
            UserError, RuntimeError: see Sampler.generate.

        """
        kept: list[Chunk] = []
        while True:
            seat = await self._sit()
            engine, fresh = seat.engine, list[Chunk]()
            assert engine is not None
            try:
                async for chunk in engine.generate(request):
                    fresh.append(chunk)
                return kept + fresh
            except EngineLostError as error:
                if seat.engine is engine:
                    seat.engine = None
                    self._lost(error)
                if self._keep_drawn and fresh:
                    kept += fresh
                    ids = [chunk.ids for chunk in fresh]
                    drawn = request.drawn + sum(map(len, ids))
                    request = replace(request, prompt=np.concatenate([request.prompt, *ids]), drawn=drawn)
            finally:
                await self._rise(seat)

    async def complete(self, requests: Sequence[Request]) -> list[list[Chunk]]:
        """Return the chunks of all responses, in the order of `requests`; an error gives the others up."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.generate(request)) for request in requests]
        except* Exception as failed:
            raise _first(failed) from None
        return [task.result() for task in tasks]

    async def replace(self, number: int, engine: Sampler) -> None:
        """Put a new engine in the place of one that is lost; it must serve what the others serve."""
        async with self._changed:
            self._seats[number] = _Seat(engine)
            self._changed.notify_all()

    async def _sit(self) -> _Seat:
        async with self._changed:
            while True:
                living = [seat for seat in self._seats if seat.engine is not None]
                if not living:
                    raise EngineLostError(0, "no engine is left")
                freest = min(living, key=lambda seat: seat.open)
                if freest.open < self._concurrency:
                    freest.open += 1
                    return freest
                await self._changed.wait()

    async def _rise(self, seat: _Seat) -> None:
        async with self._changed:
            seat.open -= 1
            self._changed.notify_all()


def _first(failed: BaseExceptionGroup) -> BaseException:
    error = failed.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
