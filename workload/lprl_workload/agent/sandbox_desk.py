"""Where the episodes of a process ask for sandboxes, and the driver answers: a process that draws may neither claim nor start one.

    episode -> lease -> [asks] -> driver (sandbox_clerk.py) -> [told] -> address
    episode's end -> end -> [asks] -> driver: its sandboxes are given up

The driver comes for what is asked (`asks` waits for it), so that an engine's pod needs no credentials and no way to the driver.
What it was given is kept until its next call says that it arrived: an answer may be lost on its way.
"""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass

END = -1
POLL_S = 5.0
"""How long the driver waits in one call."""


@dataclass(frozen=True, slots=True)
class Ask:
    """An episode wants the sandbox of `episode.tools[tool]`; END: it is over."""

    episode: str
    tool: int


@dataclass(frozen=True, slots=True)
class Told:
    """What became of an Ask."""

    episode: str
    tool: int
    address: str = ""
    """http://HOST:PORT; empty where there is none."""
    error: str = ""


class Desk:
    """Thread-safe: episodes ask in their event loops, the driver's calls come in threads of their own."""

    def __init__(self) -> None:
        self._asks: list[Ask] = []
        self._dropped = 0
        """How many came before the first of `_asks`."""
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._waiting: dict[tuple[str, int], tuple[asyncio.AbstractEventLoop, asyncio.Future[Told]]] = {}

    async def lease(self, episode: str, tool: int) -> Told:
        """Return the sandbox of an episode, or why it has none; waits for it however long that takes."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Told] = loop.create_future()
        with self._lock:
            self._waiting[episode, tool] = loop, future
            self._put(Ask(episode, tool))
        try:
            return await future
        finally:
            with self._lock:
                self._waiting.pop((episode, tool), None)

    def end(self, episode: str) -> None:
        """Give up what an episode has and asked for; who still waits for it is told so. Never waits."""
        with self._lock:
            left = [Told(*key, error="its episode is over") for key in self._waiting if key[0] == episode]
        self.told(left)
        with self._lock:
            self._put(Ask(episode, END))

    def _put(self, ask: Ask) -> None:
        self._asks.append(ask)
        self._news.notify_all()

    def asks(self, had: int = 0, wait_s: float = POLL_S) -> tuple[int, list[Ask]]:
        """Return what was asked, after `wait_s` at the latest, and the `had` of the next call, by which it arrived.

        What nobody waits for any more is left out.
        """
        with self._news:
            del self._asks[: max(0, had - self._dropped)]
            self._dropped = max(self._dropped, had)
            self._news.wait_for(lambda: bool(self._asks), wait_s)
            wanted = [ask for ask in self._asks if ask.tool == END or (ask.episode, ask.tool) in self._waiting]
            return self._dropped + len(self._asks), wanted

    def told(self, answers: Sequence[Told]) -> None:
        """Take the driver's answers; those nobody waits for any more are dropped."""
        for answer in answers:
            with self._lock:
                loop, future = self._waiting.get((answer.episode, answer.tool), (None, None))
            if loop is not None and future is not None and not loop.is_closed():
                loop.call_soon_threadsafe(_settle, future, answer)


def _settle(future: "asyncio.Future[Told]", answer: Told) -> None:
    if not future.done():
        future.set_result(answer)


desk = Desk()
"""Of this process."""
