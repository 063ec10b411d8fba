"""The open requests of one server: a task each, in a thread with an event loop of its own, whichever threads they come from.

A request is `held` here while the gate is shut, and `streaming` while the server has it. What is retracted is ended at the server, keeps
what it has drawn, and is asked for anew behind it once the gate opens: so it never spans a change of weights, in any release. In place,
the server itself stands still and keeps its cache; then its answers must say which weights drew which tokens.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from lprl_workload.process.movement import here
from lprl_workload.rollout.generation import Row
from lprl_workload.rollout.requests import Chunk
from lprl_workload.rollout.responses import Sink
from lprl_workload.rollout.sglang.client import Client, Message, ServerSaidError, request_body
from lprl_workload.rollout.sglang.together import PartedError, Together

T = TypeVar("T")
ABORT_EVERY_S, ABORT_WITHIN_S = 0.5, 30.0
"""Ending requests is repeated: one that is just on its way to the server is not known there yet."""


@dataclass(slots=True, eq=False)
class Open:
    """One request."""

    row: Row
    sink: Sink
    task: "asyncio.Task[None] | None" = None
    rid: str = ""
    """What the server calls it now; empty while it is held here."""
    aborted: bool = False
    alone: bool = False
    """Asked for by itself, since its company broke off."""


@dataclass(slots=True)
class Facts:
    """What the desk asks of the engine."""

    version: Callable[[], int]
    """Of the weights served."""
    lost: Callable[[Exception], Exception]
    """What a connection that broke means; may take a moment."""
    end_ids: frozenset[int]
    vocab: int
    together: int
    """Requests that go to the server as one, at most."""


class Desk:
    """Every method may be called from any thread."""

    def __init__(self, client: Callable[[], Client], facts: Facts) -> None:
        """`client`: made in the desk's loop."""
        self._facts = facts
        self._lock = threading.Lock()
        self._open: dict[str, Open] = {}
        self._rids = itertools.count()
        self._prefix = f"lprl-{time.time_ns():x}-"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lprl-sglang", daemon=True)
        self._thread.start()
        self._gate = self.run(self._made(asyncio.Event))
        self.client: Client = self.run(self._made(client))
        self._together = Together(self.client, facts.together)

    async def _made(self, make: Callable[[], T]) -> T:
        return make()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the desk's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def aside(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the desk's loop, from another loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    @property
    def counts(self) -> tuple[int, int]:
        """Requests the server has, and held ones."""
        with self._lock:
            streaming = sum(bool(one.rid) for one in self._open.values())
            return streaming, len(self._open) - streaming

    def submit(self, row: Row, sink: Sink) -> None:
        """Take a request. Raises ValueError when one of that id is open, and for a token that would end the server."""
        name, prompt = row.request.id, row.request.prompt
        if int(prompt.min()) < 0 or int(prompt.max()) >= self._facts.vocab:
            raise ValueError(f"request {name}: a token of its prompt is none of the model's {self._facts.vocab}")
        with self._lock:
            if name in self._open:
                raise ValueError(f"request {name}: one of that id is open already")
            one = self._open[name] = Open(row, sink)
        self._loop.call_soon_threadsafe(self._begin, one)

    def _begin(self, one: Open) -> None:
        one.task = self._loop.create_task(self._serve(one))

    def drop(self, name: str) -> None:
        """Forget a request nobody waits for any more."""
        with self._lock:
            one = self._open.pop(name, None)
        if one is not None:
            self._loop.call_soon_threadsafe(self._give_up, one)

    def _give_up(self, one: Open) -> None:
        if one.task is not None:
            one.task.cancel()
        if one.rid:
            self._loop.create_task(self.client.abort(one.rid))

    def open_gate(self) -> None:
        """Let requests go to the server."""
        self.run(self._made(self._gate.set))

    def shut_gate(self) -> None:
        """Hold requests from now on; those the server has stay there."""
        self.run(self._made(self._gate.clear))

    async def retract(self) -> None:
        """Take every request back from the server, with what it has drawn. The gate is shut. Raises TimeoutError where it keeps them."""
        await self._ended(None)

    async def _ended(self, names: Sequence[str] | None) -> None:
        until = time.monotonic() + ABORT_WITHIN_S
        while rids := self._streaming(names):
            if time.monotonic() > until:
                raise TimeoutError(f"the server did not end {len(rids)} requests in {ABORT_WITHIN_S:.0f} s")
            if names is None:
                await self.client.abort(None)
            else:
                await asyncio.gather(*map(self.client.abort, rids))
            again = time.monotonic() + ABORT_EVERY_S
            while self._streaming(names) and time.monotonic() < again:
                await asyncio.sleep(0.005)

    def _streaming(self, names: Sequence[str] | None) -> list[str]:
        with self._lock:
            return [one.rid for name, one in self._open.items() if one.rid and (names is None or name in names)]

    async def abort(self, names: Sequence[str] | None, standing: bool) -> None:
        """End requests (None: all) with what they have drawn; `standing`: the server ends none before it goes on."""
        with self._lock:
            chosen = {name: one for name, one in self._open.items() if names is None or name in names}
        for one in chosen.values():
            one.aborted = True
        if not standing:
            with suppress(TimeoutError):
                await self._ended(list(chosen))
        for name, one in chosen.items():
            with self._lock:
                there = self._open.pop(name, None) is not None
            if there:
                self._give_up(one)
                _give(one.sink, one.row.chunk(self._facts.version(), aborted=True))

    def fail(self, error: Exception) -> None:
        """End all requests with an error."""
        with self._lock:
            taken = list(self._open.values())
            self._open.clear()
        for one in taken:
            self._loop.call_soon_threadsafe(self._give_up, one)
            _give(one.sink, error)

    def close(self, error: Exception) -> None:
        """End everything, and the thread."""
        self.fail(error)
        with suppress(Exception):
            self.run(self.client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, one: Open) -> None:
        """Ask for a response until it is there, anew after each retraction."""
        try:
            while not one.aborted and not await self._asked(one):
                pass
        except asyncio.CancelledError:
            raise
        except ServerSaidError as error:
            self._end(one, RuntimeError(f"SGLang refused a request: {error}"))
        except Exception as error:  # whoever waits must learn of it, whatever it is
            self._end(one, await asyncio.to_thread(self._facts.lost, error))

    async def _asked(self, one: Open) -> bool:
        """Return whether the response ended; False: it was retracted."""
        await self._gate.wait()
        if not self._gate.is_set():
            return False
        row, version = one.row, self._facts.version()
        tokens = row.limit - len(row.tokens)
        one.rid = f"{self._prefix}{next(self._rids)}"
        body = request_body(one.rid, row.context.tolist(), row.request.sampling, tokens, self._facts.end_ids, f"v{version}")
        try:
            async with aclosing(self._together.stream(body, one.alone)) as messages:
                async for message in messages:
                    here.tick()
                    if self._told(one, message, version):
                        return True
        except PartedError:
            one.alone = True
            return False
        finally:
            one.rid = ""
        if one.aborted or not self._gate.is_set():
            return False
        raise ServerSaidError("a stream ended without its finish")

    def _told(self, one: Open, message: Message, version: int) -> bool:
        """Hand the news of a stream out; returns whether the response ended."""
        row = one.row
        for part in message.parts:
            for token, logprob in zip(part.ids, part.logprobs, strict=True):
                row.take(token, logprob)
                if row.done:
                    break
            drew = int(part.version) if part.version is not None and part.version.isdigit() else version
            chunk = row.chunk(drew)
            if row.done:
                if message.ended is None:  # a stop string: the server goes on
                    self._loop.create_task(self.client.abort(one.rid))
                self._end(one, chunk)
                return True
            _give(one.sink, chunk)
        if message.ended in ("stop", "length"):
            none = row.request.prompt[:0]
            self._end(one, Chunk(none, none.astype("float32"), version, message.ended))
            return True
        return False

    def _end(self, one: Open, item: Chunk | Exception | None) -> None:
        with self._lock:
            there = self._open.get(one.row.request.id) is one
            if there:
                del self._open[one.row.request.id]
        if there:
            here.finished()
            _give(one.sink, item)


def _give(sink: Sink, item: Chunk | Exception | None) -> None:
    if item is not None:
        with suppress(RuntimeError):  # the event loop that waited is closed
            sink(item)
