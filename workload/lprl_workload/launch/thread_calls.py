"""Lots of requests to engines of this process, one thread each."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self

from lprl_workload.agent.runner import Draw, single_turns
from lprl_workload.data import GenerationRequest, SamplingParams
from lprl_workload.episode import EpisodeRef, described
from lprl_workload.process.errors import EngineLostError, ServerLostError
from lprl_workload.rollout.engine import RolloutEngine
from lprl_workload.rollout.pool import Seat

Lot = Sequence[GenerationRequest]


class ThreadCalls:
    """Carrier of one deal; leaving it waits for nothing that is still drawn."""

    def __init__(self, lots: Sequence[Lot], params: SamplingParams, draw: Draw = single_turns) -> None:
        self._lots, self._params, self._draw = lots, params, draw
        self._threads = ThreadPoolExecutor(max(1, len(lots)), "generate")
        self._open: dict[Future[list[EpisodeRef]], int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._threads.shutdown(wait=kind is None, cancel_futures=True)

    def send(self, lot: int, seat: Seat[RolloutEngine]) -> None:
        """Begin a lot in a thread."""
        self._open[self._threads.submit(_drawn, seat, self._lots[lot], self._params, self._draw)] = lot

    def answers(self, timeout_s: float) -> Mapping[int, list[EpisodeRef] | EngineLostError]:
        """Return what ended."""
        ended, _ = wait(self._open, timeout_s, FIRST_COMPLETED)
        return {self._open.pop(future): _told(future) for future in ended}


def _drawn(seat: Seat[RolloutEngine], lot: Lot, params: SamplingParams, draw: Draw) -> list[EpisodeRef]:
    """Return a lot's episodes; the references are the episodes themselves."""
    try:
        episodes = asyncio.run(draw(seat.engine, lot, params))
    except ServerLostError as error:
        raise EngineLostError(seat.number, f"generation: engine {seat.number}: {error}") from error
    return [described(episode, episode, seat.number) for episode in episodes]


def _told(future: Future[list[EpisodeRef]]) -> list[EpisodeRef] | EngineLostError:
    try:
        return future.result()
    except EngineLostError as error:
        return error
