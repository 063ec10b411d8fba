"""The desks of engines in processes of their own, as the driver reaches them."""

from collections.abc import Sequence
from typing import Any

from ray.exceptions import ActorDiedError

from lprl_workload.agent.sandbox_clerk import GoneError
from lprl_workload.agent.sandbox_desk import Ask, Told
from lprl_workload.launch.ray_link import lost_words

GROUP = "sandboxes"
"""Concurrency group of an engine's actor: one call waits for what is asked, another brings answers."""
CALLS = 2


class ActorLink:
    """The desk of an engine's actor. One that Ray calls unavailable may be back: only one that died is gone."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._had = 0

    async def asks(self) -> Sequence[Ask]:
        """See Link."""
        self._had, found = await _answered(self._handle.sandbox_asks, self._had)
        asks: Sequence[Ask] = found
        return asks

    async def told(self, answers: Sequence[Told]) -> None:
        """See Link."""
        await _answered(self._handle.sandbox_told, list(answers))


async def _answered(method: Any, given: Any) -> Any:
    try:
        return await method.options(concurrency_group=GROUP).remote(given)
    except ActorDiedError as error:
        raise GoneError(lost_words(error)) from error
