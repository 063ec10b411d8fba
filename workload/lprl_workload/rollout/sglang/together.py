"""Requests that set out in the same moment go to a server as one: on a CPU an HTTP exchange each costs more than what short answers do.

    [{"rid": "a", "input_ids": [5], ...}, {"rid": "b", "input_ids": [7], ...}]  ->  {"rid": ["a", "b"], "input_ids": [[5], [7]], ...}

Each row's news come back under its number in the list. A row whose company is refused, or breaks off, is asked for again by itself.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from lprl_workload.rollout.sglang.client import Client, Message, Reader, ServerSaidError

WAIT_S = 0.005
"""A request waits this long for others."""
BY_ROW = ("rid", "input_ids", "sampling_params", "extra_key")
"""Parts of a body that each row says for itself; the rest is the same in all."""
Body = Mapping[str, Any]
Inbox = asyncio.Queue[Message | Exception | None]
"""A row's news; None behind the last."""


class PartedError(Exception):
    """What went together broke off before this row had ended."""


def joined(bodies: Sequence[Body]) -> Body:
    """Return the body of several requests; of one as it is."""
    if len(bodies) == 1:
        return bodies[0]
    return {**bodies[0], **{key: [body[key] for body in bodies] for key in BY_ROW}}


@dataclass(slots=True, eq=False)
class _Row:
    """One request."""

    body: Body
    inbox: Inbox = field(default_factory=asyncio.Queue)
    over: bool = False
    """Nobody waits for more of it."""


@dataclass(slots=True, eq=False)
class _Company:
    """Rows that go together."""

    rows: list[_Row] = field(default_factory=list)
    task: "asyncio.Task[None] | None" = None
    """Once they are on their way."""


class Together:
    """The requests of one server. Everything happens in one event loop."""

    def __init__(self, client: Client, most: int) -> None:
        """`most`: rows that go together; 1: each by itself, at once."""
        self._client, self._most = client, most
        self._next = _Company()

    async def stream(self, body: Body, alone: bool) -> AsyncGenerator[Message, None]:
        """Yield a request's messages. Raises PartedError (never where it goes `alone`), ServerSaidError and what httpx raises."""
        row = _Row(body)
        company = _Company() if alone or self._most == 1 else self._next
        company.rows.append(row)
        if company is not self._next or len(company.rows) == self._most:
            self._go(company)
        elif len(company.rows) == 1:
            asyncio.get_running_loop().call_later(WAIT_S, self._go, company)
        try:
            while (item := await row.inbox.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            row.over = True
            if company.task is None:
                company.rows.remove(row)
            elif all(one.over for one in company.rows):
                company.task.cancel()

    def _go(self, company: _Company) -> None:
        if company is self._next:
            self._next = _Company()
        if company.task is None and company.rows:
            company.task = asyncio.get_running_loop().create_task(self._carry(company.rows))

    async def _carry(self, rows: list[_Row]) -> None:
        left: Exception | None = None if len(rows) == 1 else PartedError("the answer ended")
        try:
            await self._read(rows)
        except ServerSaidError as error:
            left = error if len(rows) == 1 else PartedError(str(error))
        except Exception as error:  # whoever waits must learn of it, whatever it is
            left = error
        for row in rows:
            row.inbox.put_nowait(left)

    async def _read(self, rows: list[_Row]) -> None:
        """Hand out what comes; a row that ended hears nothing of what is put behind its None."""
        readers = [Reader() for _ in rows]
        async with aclosing(self._client.events(joined([row.body for row in rows]))) as events:
            async for found in events:
                if "error" in found and len(rows) > 1:
                    raise ServerSaidError(str(found["error"]))
                number = int(found.get("index", 0))
                try:
                    message = readers[number].read(found)
                except ServerSaidError as error:
                    rows[number].inbox.put_nowait(error)
                    continue
                rows[number].inbox.put_nowait(message)
                if message.ended is not None:
                    rows[number].inbox.put_nowait(None)
