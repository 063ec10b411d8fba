"""Between the driver and the desk of an engine: what dies, what is out of reach for a while, what is lost on its way or asked twice."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.lprl_workload.agent.sandboxes import FakeApi, claims, fake_api, talk, tool, tool_server, tools_of
from tests.unit.lprl_workload.agent.test_sandbox_claims import LIMIT_S, episode, gone, run

from lprl_api.spec.episode import Tool
from lprl_workload.agent import sandbox_clerk
from lprl_workload.agent.sandbox_clerk import Clerk, DeskLink, GoneError, SandboxError
from lprl_workload.agent.sandbox_desk import END, Ask, Desk, Told
from lprl_workload.agent.tool_sandbox import SandboxTool
from lprl_workload.agent.toolbox import Toolbox


@pytest.fixture
def api() -> Iterator[tuple[FakeApi, str]]:
    with fake_api() as found:
        yield found


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_clerk, "FIRST_WAIT_S", 0.01)


class Link(DeskLink):
    """The link to an engine of which answers get lost: that of each call whose error stands in `lost`, after the call was made."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.calls = self.answers = 0
        self.had: list[Ask] = []
        self.lost: dict[str, list[Exception]] = {"asks": [], "told": []}
        self.gone = threading.Event()

    async def asks(self) -> Sequence[Ask]:
        """See Link."""
        self.calls += 1
        if self.gone.is_set():
            raise GoneError("the actor died")
        had, found = self._had, await super().asks()
        if self.lost["asks"]:
            self._had = had
            raise self.lost["asks"].pop(0)
        self.had += found
        return found

    async def told(self, answers: Sequence[Told]) -> None:
        """See Link."""
        if self.lost["told"]:
            raise self.lost["told"].pop(0)
        await super().told(answers)
        self.answers += 1

    @property
    def given(self) -> int:
        """How often a sandbox was asked for."""
        return sum(ask.tool != END for ask in self.had)


@contextmanager
def engine(source: Any, port: int, **changes: Any) -> Iterator[tuple[Toolbox, Link]]:
    desk, one = Desk(), tool(port, **changes)
    clerk, link = Clerk({0: one}, source), Link(desk)
    clerk.attach(link)
    try:
        yield Toolbox({one.name: SandboxTool(one, 0, desk)}, None), link
    finally:
        clerk.close()


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.01)


def test_sandboxes_of_an_engine_that_died_are_ended_and_it_is_asked_no_more(api: Any, tmp_path: Path) -> None:
    async def dies(tools: Toolbox, link: Link) -> None:
        async with tools.opened(talk()) as mine:
            assert (await mine.call("count")).how == "ok" and len(api[0].claims) == 1
            link.gone.set()
            await gone(api[0])
        calls = link.calls
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(episode(tools), 0.2)
        assert link.calls == calls

    with tool_server() as port, engine(claims(api[1], tmp_path), port) as given:
        run(dies(*given))


def test_an_engine_that_was_out_of_reach_is_served_again(api: Any, tmp_path: Path) -> None:
    """What it held is given up, as it might have died; what it asked for meanwhile it gets."""

    async def comes_back(tools: Toolbox, link: Link) -> None:
        async with tools.opened(talk()) as mine:
            assert (await mine.call("count")).how == "ok" and len(api[0].claims) == 1
            link.lost["asks"] = [RuntimeError("the actor is unavailable")] * 3
            assert (await episode(tools, calls=1))[0]["calls"] == 1
            await gone(api[0])
        assert not link.lost["asks"] and len(api[0].made) == 2

    with tool_server() as port, engine(claims(api[1], tmp_path), port, max_concurrent=1) as given:
        run(comes_back(*given))


def test_who_waits_while_its_engine_is_out_of_reach_has_a_sandbox_afterwards(api: Any, tmp_path: Path) -> None:
    async def waits(tools: Toolbox, link: Link) -> None:
        api[0].ready = False
        waiting = asyncio.create_task(episode(tools, calls=1))
        await until(lambda: len(api[0].claims) == 1)
        link.lost["asks"] = [RuntimeError("the actor is unavailable")]
        await until(lambda: not link.lost["asks"])
        api[0].there()
        assert (await waiting)[0]["calls"] == 1
        await gone(api[0])

    with tool_server() as port, engine(claims(api[1], tmp_path), port, claim_seconds=LIMIT_S) as given:
        run(waits(*given))
    assert len(api[0].made) == 2


def test_an_answer_that_did_not_arrive_is_brought_again(api: Any, tmp_path: Path) -> None:
    with tool_server() as port, engine(claims(api[1], tmp_path), port) as (tools, link):
        link.lost["told"] = [RuntimeError("the actor is unavailable")] * 2
        assert run(episode(tools))[-1]["calls"] == 3
        assert not link.lost["told"] and len(api[0].made) == 1


@pytest.mark.parametrize("ready", ["while the second call waits", "before the second call"])
def test_a_call_that_gave_up_and_is_made_again_has_the_one_sandbox_of_its_episode(api: Any, tmp_path: Path, ready: str) -> None:
    async def gives_up(tools: Toolbox, link: Link) -> None:
        api[0].ready = False
        async with tools.opened(talk()) as mine:
            first = asyncio.create_task(mine.call("count"))
            await until(lambda: len(api[0].claims) == 1)
            first.cancel()
            if ready == "before the second call":
                api[0].there()
                await until(lambda: link.answers > 0)
            second = asyncio.create_task(mine.call("count"))
            await until(lambda: link.given > 1)
            api[0].there()
            assert (await second).how == "ok" and len(api[0].made) == 1
        await gone(api[0])

    with tool_server() as port, engine(claims(api[1], tmp_path), port, claim_seconds=LIMIT_S) as given:
        run(gives_up(*given))


class Never:
    """A source that has no sandbox yet."""

    def __init__(self) -> None:
        self.begun = self.ended = self.closed = 0

    async def open(self, name: str, tool: Tool) -> str:
        """See Source."""
        self.begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.ended += 1
        return ""

    async def close(self, name: str) -> None:
        """See Source."""
        self.closed += 1

    async def clear(self) -> None:
        """See Source."""

    shut = clear


def test_the_end_of_an_episode_ends_all_it_asked_for_in_calls_that_gave_up() -> None:
    async def gives_up(tools: Toolbox, link: Link, source: Never) -> None:
        async with tools.opened(talk()) as mine:
            for count in (1, 2):
                call = asyncio.create_task(mine.call("count"))
                while link.given < count:
                    await asyncio.sleep(0.01)
                call.cancel()
            await until(lambda: source.begun > 0)
        await until(lambda: source.begun == source.ended == source.closed)

    source = Never()
    with engine(source, 8080) as given:
        run(gives_up(*given, source))
        assert source.begun == 1


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_start_asks_a_busy_api_server_again_for_leftovers(api: Any, tmp_path: Path, method: str) -> None:
    api[0].add(claims(api[1], tmp_path, attempt=1)._claim("sums-of-before", "counters"))
    api[0].refuse = {method: [503, 429, 500]}
    with tools_of(claims(api[1], tmp_path), tool(8080)):
        assert not api[0].claims and not api[0].refuse[method]


def test_a_start_gives_up_on_an_api_server_that_stays_busy(api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_clerk, "CLEAR_S", 0.2)
    api[0].refuse = {"GET": [503] * 1000}
    with pytest.raises(SandboxError, match="GET sandboxclaims: HTTP 503"), tools_of(claims(api[1], tmp_path), tool(8080)):
        pass


def test_a_desk_gives_what_was_asked_until_it_arrived_and_nothing_nobody_waits_for() -> None:
    async def asked() -> None:
        desk = Desk()
        leases = [asyncio.create_task(desk.lease(name, 0)) for name in ("a", "b")]
        await asyncio.sleep(0)
        had, found = desk.asks(0, 0)
        assert (had, found) == (2, [Ask("a", 0), Ask("b", 0)]) and desk.asks(0, 0) == (had, found), "the first answer was lost"
        leases[0].cancel()
        await asyncio.wait(leases[:1])
        assert desk.asks(0, 0) == (2, [Ask("b", 0)]) and desk.asks(had, 0) == (2, [])
        desk.end("b")
        await leases[1]
        assert desk.asks(1, 0)[1] == desk.asks(2, 0)[1] == [Ask("b", END)], "a call of before is late, and takes nothing away"

    asyncio.run(asked())
