"""The driver's side of sandboxes: how many there are at a time, who has which, and that every one is gone when its episode is.

An episode that asks for one takes a place at every tool with sandboxes, in their order: two that hold what the other one waits for
would wait until their limits. Places are given in the order of asking, and given back when the API server has taken the claim away.
"""

import asyncio
import itertools
import logging
import random
import secrets
import threading
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from lprl_api.spec.episode import Tool
from lprl_workload.agent.sandbox_desk import END, Ask, Desk, Told

T = TypeVar("T")
log = logging.getLogger(__name__)
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 10.0
CLOSE_S = 20.0
"""How long the end of a run waits until all are gone; what is left goes with the driver's pod."""
CLEAR_S = 60.0
"""How long leftovers are tried to be ended before a run begins: an API server may be about to be back."""


class SandboxError(RuntimeError):
    """There is no sandbox; `again`: another try may have one."""

    def __init__(self, message: str, again: bool = True) -> None:
        super().__init__(message)
        self.again = again


class GoneError(RuntimeError):
    """A process that drew is gone for good."""


class Source(Protocol):
    """Where sandboxes come from: claims in a cluster, processes of this machine."""

    async def open(self, name: str, tool: Tool) -> str:
        """Return the address (http://HOST:PORT) of one that nobody had before and nobody else will have.

        It is ready within the tool's claimSeconds. Raises SandboxError. However this ends, `close` of that name follows.
        """

    async def close(self, name: str) -> None:
        """End one; returns when it is gone, and of one that never came to be. Raises SandboxError: to be tried again."""

    async def clear(self) -> None:
        """End what an earlier attempt left. Raises SandboxError."""

    async def shut(self) -> None:
        """Free what it holds itself."""


class Link(Protocol):
    """The desk of one process that draws."""

    async def asks(self) -> Sequence[Ask]:
        """Return what was asked there since the last call that returned; waits a while for it.

        Raises GoneError when the process is gone. After any other error it may be there: what was asked meanwhile is not lost.
        """

    async def told(self, answers: Sequence[Told]) -> None:
        """Bring answers there. Raises as `asks` does; they may have arrived nevertheless."""


class DeskLink:
    """The desk of this process."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._had = 0

    async def asks(self) -> Sequence[Ask]:
        """See Link."""
        self._had, found = await asyncio.to_thread(self._desk.asks, self._had, 0.5)
        return found

    async def told(self, answers: Sequence[Told]) -> None:
        """See Link."""
        self._desk.told(answers)


@dataclass(slots=True, eq=False)
class _Stay:
    """What one episode has."""

    link: Link
    places: list[asyncio.Semaphore] = field(default_factory=list)
    admitted: "asyncio.Task[None] | None" = None
    opening: "dict[int, asyncio.Task[Told]]" = field(default_factory=dict)
    """The last attempt at each tool."""
    answering: "dict[asyncio.Task[None], Ask]" = field(default_factory=dict)
    """One for each time it was asked."""
    held: list[str] = field(default_factory=list)
    """Names of what there is, or may be: it is to be closed."""


class Clerk:
    """Serves desks, in a thread and an event loop of its own."""

    def __init__(self, tools: Mapping[int, Tool], source: Source) -> None:
        """`tools`: those with a sandbox, by their number in episode.tools. Raises SandboxError when leftovers cannot be ended."""
        self._tools, self._source = dict(sorted(tools.items())), source
        self._places = {n: asyncio.Semaphore(tool.sandbox.max_concurrent) for n, tool in self._tools.items() if tool.sandbox}
        self._stays: dict[str, _Stay] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sandboxes", daemon=True)
        self._thread.start()
        try:
            self._wait(self._clear())
        except BaseException:
            self.close()
            raise

    def attach(self, link: Link) -> None:
        """Serve a process from now on, until its link says that it is gone; what its episodes have is ended then."""
        self._loop.call_soon_threadsafe(lambda: self._spawn(self._serve(link)))

    def close(self) -> None:
        """End every sandbox, within CLOSE_S."""
        if not self._thread.is_alive():
            return
        with suppress(TimeoutError):
            self._wait(asyncio.wait_for(self._close(), CLOSE_S))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _close(self) -> None:
        try:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.gather(*(self._leave(episode) for episode in list(self._stays)))
        finally:
            await self._source.shut()

    def _spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _clear(self) -> None:
        until = self._loop.time() + CLEAR_S
        for attempt in itertools.count(1):
            try:
                return await self._source.clear()
            except SandboxError as error:
                wait_s = _backoff(attempt)
                if not error.again or self._loop.time() + wait_s > until:
                    raise
                log.warning("leftover sandboxes: %s; trying again", error)
                await asyncio.sleep(wait_s)

    async def _serve(self, link: Link) -> None:
        failed, again = 0, list[Ask]()
        while True:
            try:
                asks = await link.asks()
            except GoneError as error:
                log.info("a process that drew is gone, and so are the sandboxes of its episodes: %s", _head(error))
                self._forsake(link)
                return
            except Exception as error:
                failed += 1
                log.warning("a process that draws is out of reach, its episodes lose their sandboxes: %s; trying again", _head(error))
                again += self._forsake(link)
                await asyncio.sleep(_backoff(failed))
            else:
                for ask in (*again, *asks):
                    self._take(link, ask)
                failed, again = 0, []

    def _forsake(self, link: Link) -> list[Ask]:
        """End what the episodes of a process have: it may be gone. Returns what they still wait for, should it be there."""
        left = {episode: stay for episode, stay in self._stays.items() if stay.link is link}
        for episode in left:
            self._spawn(self._leave(episode))
        return [ask for stay in left.values() for task, ask in stay.answering.items() if not task.done()]

    def _take(self, link: Link, ask: Ask) -> None:
        """Begin what an episode asks for. It asks again when a call of its own gave up: it has one sandbox nevertheless."""
        if ask.tool == END:
            self._spawn(self._leave(ask.episode))
            return
        stay = self._stays.setdefault(ask.episode, _Stay(link))
        if stay.admitted is None:
            stay.admitted = self._spawn(self._admit(stay))
        opening = stay.opening.get(ask.tool)
        if opening is None or _in_vain(opening):
            opening = stay.opening[ask.tool] = self._spawn(self._open(stay, ask))
        stay.answering[self._spawn(self._answer(link, opening))] = ask

    async def _admit(self, stay: _Stay) -> None:
        for place in self._places.values():
            await place.acquire()
            stay.places.append(place)

    async def _answer(self, link: Link, opening: "asyncio.Task[Told]") -> None:
        """Tell what became of an Ask, until it arrived or the process is gone."""
        told = await asyncio.shield(opening)
        for attempt in itertools.count(1):
            try:
                return await link.told([told])
            except GoneError:
                return
            except Exception as error:
                log.warning("the answer to an episode did not arrive: %s; trying again", _head(error))
                await asyncio.sleep(_backoff(attempt))

    async def _open(self, stay: _Stay, ask: Ask) -> Told:
        assert stay.admitted is not None
        await asyncio.shield(stay.admitted)
        tool = self._tools[ask.tool]
        told = Told(ask.episode, ask.tool, error="no sandbox")
        for attempt in range(tool.retries + 1):
            if attempt:
                await asyncio.sleep(_backoff(attempt))
            name = secrets.token_hex(5)
            stay.held.append(name)
            try:
                told = Told(ask.episode, ask.tool, await self._source.open(name, tool))
                break
            except Exception as error:
                told = Told(ask.episode, ask.tool, error=str(error) or type(error).__name__)
                log.warning("sandbox of tool %s: %s", tool.name, error, exc_info=None if isinstance(error, SandboxError) else error)
                await self._until_gone(name)
                stay.held.remove(name)
                if not (isinstance(error, SandboxError) and error.again):
                    break
        return told

    async def _leave(self, episode: str) -> None:
        stay = self._stays.pop(episode, None)
        if stay is None:
            return
        tasks = [*stay.answering, *stay.opening.values(), *([stay.admitted] if stay.admitted is not None else [])]
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*map(self._until_gone, stay.held))
        except asyncio.CancelledError:
            self._stays[secrets.token_hex(5)] = stay  # the run ends: whoever cancelled this goes on with it, besides what came back since
            raise
        for place in stay.places:
            place.release()
        stay.places.clear()

    async def _until_gone(self, name: str) -> None:
        attempt = 0
        while True:
            try:
                return await self._source.close(name)
            except SandboxError as error:
                attempt += 1
                log.warning("sandbox %s: %s; trying again", name, error)
                await asyncio.sleep(_backoff(attempt))


def _in_vain(opening: "asyncio.Task[Told]") -> bool:
    return opening.done() and (opening.cancelled() or opening.exception() is not None or not opening.result().address)


def _head(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _backoff(attempt: int) -> float:
    return float(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(attempt - 1, 10)) * random.uniform(0.5, 1.5))
