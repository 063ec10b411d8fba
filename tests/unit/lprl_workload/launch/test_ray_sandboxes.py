"""Which of Ray's errors say that an engine is gone for good."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from lprl_workload.agent.sandbox_clerk import GoneError
from lprl_workload.agent.sandbox_desk import Ask, Desk, Told
from lprl_workload.launch.ray_sandboxes import ActorLink


def handle(asks: Callable[..., Any], told: Callable[..., Any]) -> Any:
    """Return what looks like an actor that has these methods."""

    def method(call: Callable[..., Any]) -> Any:
        async def remote(*given: Any) -> Any:
            return call(*given)

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=remote))

    return SimpleNamespace(sandbox_asks=method(asks), sandbox_told=method(told))


@pytest.mark.parametrize(
    ("error", "gone"),
    [(ActorDiedError(), True), (ActorUnavailableError("it broke", None), False), (OSError("no memory"), False)],
)
def test_only_an_actor_that_died_is_gone(error: Exception, gone: bool) -> None:
    def fails(*_: Any) -> Any:
        raise error

    link = ActorLink(handle(fails, fails))
    for call in (link.asks(), link.told([Told("a", 0)])):
        with pytest.raises(GoneError if gone else type(error)) as found:
            asyncio.run(call)  # type: ignore[arg-type]
        assert isinstance(found.value, GoneError) == gone


def test_a_link_tells_its_desk_what_arrived() -> None:
    desk = Desk()
    link = ActorLink(handle(lambda had: desk.asks(had, 0), desk.told))
    for name in ("a", "b"):
        desk.end(name)
        assert asyncio.run(link.asks()) == [Ask(name, -1)]  # type: ignore[arg-type]
