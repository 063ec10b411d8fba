"""What every engine does with a request, however it draws: where its response ends, and how its chunks are handed on."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from lprl_api.errors import UserError
from lprl_workload.rollout.end_tokens import end_token_ids
from lprl_workload.rollout.generation import Row, StopRule
from lprl_workload.rollout.requests import Chunk, Request
from lprl_workload.rollout.tokens import load_tokenizer

Sink = Callable[[Chunk | Exception], object]
"""Takes the chunks of a response, or what ends it instead; called from any thread, must not block."""


class Responses:
    """The ends of responses of one model."""

    def __init__(self, folder: Path, context: int) -> None:
        """Read the tokenizer and generation_config.json of `folder`; `context`: longest prompt plus response, tokens."""
        self.context = context
        self._tokenizer: Any = load_tokenizer(folder)
        self.end_ids = end_token_ids(folder, self._tokenizer)
        """Token ids that end a response."""

    def row(self, request: Request) -> Row:
        """Return the response to a request, of which nothing is drawn yet; raises UserError for a prompt that leaves no room."""
        sampling = request.sampling
        return Row(request, self._limit(request), StopRule(self.end_ids | set(sampling.stop_token_ids), sampling.stop, self._decode))

    def _limit(self, request: Request) -> int:
        length = len(request.prompt) - request.drawn
        room = self.context - length
        if length < 1 or room - request.drawn < 1:
            raise UserError(
                f"a prompt of {len(request.prompt)} tokens leaves no room in a context of {self.context}",
                "set data.maxPromptTokens below the context length",
            )
        return min(request.sampling.max_response_tokens, room)

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))


class Mail:
    """What other threads hand to one event loop.

    Waking a loop is a system call in which the thread that calls gives way to the one it wakes, for milliseconds where both have work:
    a loop is woken once for all that came since it last looked.
    """

    _of: WeakKeyDictionary[asyncio.AbstractEventLoop, "Mail"] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._came: list[tuple[asyncio.Queue[Chunk | Exception], Chunk | Exception]] = []

    @classmethod
    def here(cls) -> "Mail":
        """Return that of the running loop."""
        return cls._of.setdefault(asyncio.get_running_loop(), cls())

    def put(self, loop: asyncio.AbstractEventLoop, queue: "asyncio.Queue[Chunk | Exception]", item: Chunk | Exception) -> None:
        """Have `loop` put an item into a queue of its own, behind those before. Raises RuntimeError when it is closed."""
        with self._lock:
            self._came.append((queue, item))
            if len(self._came) > 1:  # it is on its way
                return
        loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            came, self._came = self._came, []
        for queue, item in came:
            queue.put_nowait(item)


async def stream(submit: Callable[[Sink], None], drop: Callable[[], None]) -> AsyncGenerator[Chunk, None]:
    """Yield the chunks that come to the sink given to `submit`, from whatever thread, up to the last; raises what comes instead of one.

    `drop` is called at the end, also of an iterator that is closed early.
    """
    chunks = asyncio.Queue[Chunk | Exception]()
    submit(partial(Mail.here().put, asyncio.get_running_loop(), chunks))
    try:
        finish = None
        while finish is None:
            item = await chunks.get()
            if isinstance(item, Exception):
                raise item
            finish = item.finish
            yield item
    finally:
        drop()
