"""Lots of requests to engine actors: calls that run side by side in each, under a vigil."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray

from lprl_workload.data import GenerationRequest, SamplingParams
from lprl_workload.episode import EpisodeRef
from lprl_workload.launch.ray_link import ActorLostError, get_all
from lprl_workload.launch.ray_vigil import Vigil
from lprl_workload.launch.stillness import Limits
from lprl_workload.process.errors import EngineLostError, ServerLostError
from lprl_workload.rollout.pool import Seat

Lot = Sequence[GenerationRequest]
GENERATION = "generation"
"""Concurrency group of the calls that draw: weights are not taken in it, nor is it asked how the process is."""


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    seat: Seat[Any]
    views: Any
    """Reference to what the driver holds of the lot's episodes."""
    episodes: Sequence[Any]
    """References to the episodes: objects of their own in the engine's node, owned by the driver, so that they outlive its process."""


class ActorCalls:
    """Carrier of one deal."""

    def __init__(self, lots: Sequence[Lot], params: SamplingParams, limits: Limits, who: Callable[[int], str]) -> None:
        """`limits`: of how long an engine may stand still; `who`: names engine n."""
        self._lots, self._params, self._who = lots, params, who
        self._open: dict[int, _Call] = {}
        self._handles: dict[int, Any] = {}
        self._vigil = Vigil(self._handles, limits)
        self._look_at = 0.0

    def send(self, lot: int, seat: Seat[Any]) -> None:
        """Begin a lot in an engine's process."""
        if all(call.seat is not seat for call in self._open.values()):
            self._handles[seat.serial] = seat.engine
            self._vigil.expect(seat.serial)
        requests = self._lots[lot]
        call = seat.engine.generate.options(num_returns=1 + len(requests), concurrency_group=GENERATION)
        views, *episodes = call.remote(list(requests), self._params)
        self._open[lot] = _Call(seat, views, episodes)

    def answers(self, timeout_s: float) -> Mapping[int, list[EpisodeRef] | EngineLostError]:
        """Return what ended, and what an engine that stands still had open: it is killed."""
        refs = {call.views: lot for lot, call in self._open.items()}
        ray.wait(list(refs), num_returns=1, timeout=min(timeout_s, self._vigil.poll_s))
        done, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0)
        found = {refs[ref]: self._answer(self._open.pop(refs[ref])) for ref in done}
        return found | self._given_up()

    def _answer(self, call: _Call) -> list[EpisodeRef] | EngineLostError:
        number = call.seat.number
        try:
            views = get_all([call.views], "generation", who=lambda _: self._who(number))[0]
        except ActorLostError as error:
            return EngineLostError(number, str(error))
        if isinstance(views, ServerLostError):
            return EngineLostError(number, f"generation: {self._who(number)}: {views}")
        return [replace(view, engine=number, ref=ref) for view, ref in zip(views, call.episodes, strict=True)]

    def _given_up(self) -> dict[int, EngineLostError]:
        if not self._open or time.monotonic() < self._look_at:
            return {}
        self._look_at = time.monotonic() + self._vigil.poll_s
        still = self._vigil.look({call.seat.serial for call in self._open.values()})
        if still is None:
            return {}
        self._vigil.end(still)
        lots = [lot for lot, call in self._open.items() if call.seat.serial == still.number]
        number = self._open[lots[0]].seat.number
        error = EngineLostError(number, f"generation: {self._who(number)} {still.words}")
        return {lot: error for lot in lots if self._open.pop(lot)}
