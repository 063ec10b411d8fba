"""Requests that go to a server as one: each row hears its own news, and what becomes of the others of its company is not its business."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from lprl_workload.rollout.sglang.client import Client, Message, ServerSaidError
from lprl_workload.rollout.sglang.together import PartedError, Together, joined

Say = Callable[[Any], Awaitable[None]]
Script = Callable[[dict[str, Any], Say], Awaitable[int | None]]
"""What the server does with a request's body: says events, and returns a status in the place of a stream."""
LENGTH = {"type": "length", "length": 1}


def body(name: str) -> dict[str, Any]:
    """Return a request's body."""
    own = {"rid": name, "input_ids": [len(name)], "sampling_params": {"max_new_tokens": 2}, "extra_key": "v1"}
    return own | {"return_logprob": True, "stream": True}


def news(index: int, ids: list[int], done: int, reason: Any = None) -> dict[str, Any]:
    """Return an event."""
    meta = {"completion_tokens": done, "output_token_logprobs": [[-0.5, i, None] for i in ids], "finish_reason": reason}
    return {"index": index, "output_ids": ids, "meta_info": meta}


class Server:
    """A socket that answers as a script says."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.bodies: list[dict[str, Any]] = []
        self.broken = asyncio.Event()
        """A client closed a stream that had not ended."""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = int(head.partition("content-length:")[2].split()[0])
        asked = json.loads(await reader.readexactly(size))
        self.bodies.append(asked)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/event-stream\r\n\r\n")

        async def say(event: Any) -> None:
            writer.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            await writer.drain()

        working = asyncio.ensure_future(self._script(asked, say))
        gone = asyncio.ensure_future(reader.read())
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            self.broken.set()
            working.cancel()
        writer.close()


@asynccontextmanager
async def served(script: Script, most: int = 8) -> AsyncIterator[tuple[Server, Together]]:
    server = Server(script)
    listening = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    client = Client(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", "data", "admin")
    try:
        yield server, Together(client, most)
    finally:
        await client.close()
        listening.close()


async def heard(together: Together, name: str, alone: bool = False) -> list[Message]:
    async with aclosing(together.stream(body(name), alone)) as messages:
        return [message async for message in messages]


def tokens(messages: list[Message]) -> list[int]:
    return [i for message in messages for part in message.parts for i in part.ids]


def test_rows_that_set_out_together_are_one_request_and_each_hears_its_own_news() -> None:
    async def script(asked: dict[str, Any], say: Say) -> None:
        await say(news(1, [8], 1))
        await say(news(0, [5], 1, LENGTH))
        await say(news(1, [9], 2, LENGTH))

    async def go() -> None:
        async with served(script) as (server, together):
            one, two = await asyncio.gather(heard(together, "a"), heard(together, "bb"))
            assert (tokens(one), tokens(two)) == ([5], [8, 9]) and [m.ended for m in two] == [None, "length"]
            assert server.bodies == [joined([body("a"), body("bb")])]
            assert server.bodies[0]["rid"] == ["a", "bb"] and server.bodies[0]["input_ids"] == [[1], [2]]
            assert server.bodies[0]["stream"] is True and server.bodies[0]["extra_key"] == ["v1", "v1"]

    asyncio.run(go())


@pytest.mark.parametrize(("most", "requests"), [(1, 5), (2, 3), (8, 1)])
def test_no_more_go_together_than_may(most: int, requests: int) -> None:
    async def script(asked: dict[str, Any], say: Say) -> None:
        for number in range(len(asked["rid"]) if isinstance(asked["rid"], list) else 1):
            await say(news(number, [7], 1, LENGTH))

    async def go() -> None:
        async with served(script, most) as (server, together):
            assert [tokens(found) for found in await asyncio.gather(*(heard(together, "r" * n) for n in range(1, 6)))] == [[7]] * 5
            assert len(server.bodies) == requests

    asyncio.run(go())


def test_what_is_refused_or_breaks_off_together_is_to_be_asked_for_alone_and_alone_the_servers_words_are_heard() -> None:
    async def script(asked: dict[str, Any], say: Say) -> None:
        if isinstance(asked["rid"], list):
            await say(news(0, [5], 1, LENGTH))
        if isinstance(asked["rid"], list) or asked["rid"] == "bb":
            await say({"error": {"message": "too long"}})
        else:
            await say(news(0, [6], 1, LENGTH))

    async def go() -> None:
        async with served(script) as (_, together):
            found = await asyncio.gather(heard(together, "a"), heard(together, "bb"), heard(together, "ccc"), return_exceptions=True)
            assert isinstance(found[0], list) and tokens(found[0]) == [5], "it had ended"
            assert [type(one) for one in found[1:]] == [PartedError, PartedError]
            assert tokens(await heard(together, "ccc", alone=True)) == [6]
            with pytest.raises(ServerSaidError, match="too long"):
                await heard(together, "bb", alone=True)

    asyncio.run(go())


def test_a_row_that_the_server_ends_with_an_error_takes_no_other_with_it() -> None:
    async def script(asked: dict[str, Any], say: Say) -> None:
        await say(news(0, [], 0, {"type": "abort", "message": "no memory for it", "status_code": 503}))
        await say(news(1, [9], 1, LENGTH))

    async def go() -> None:
        async with served(script) as (_, together):
            found = await asyncio.gather(heard(together, "a"), heard(together, "bb"), return_exceptions=True)
            assert isinstance(found[0], ServerSaidError) and "no memory" in str(found[0])
            assert isinstance(found[1], list) and tokens(found[1]) == [9]

    asyncio.run(go())


def test_others_go_on_without_a_row_nobody_waits_for_and_a_stream_that_nobody_hears_is_closed() -> None:
    begun, on = asyncio.Event(), asyncio.Event()

    async def script(asked: dict[str, Any], say: Say) -> None:
        await say(news(1, [8], 1))
        begun.set()
        await on.wait()
        await say(news(1, [9], 2))
        await asyncio.sleep(600)

    async def go() -> None:
        async with served(script) as (server, together):
            first, second = (asyncio.ensure_future(heard(together, name)) for name in ("a", "bb"))
            await begun.wait()
            first.cancel()
            on.set()
            async with aclosing(together.stream(body("late"), alone=False)) as late:
                waiting = asyncio.ensure_future(anext(late))
                await asyncio.sleep(0)
                waiting.cancel()  # before it has set out
                await asyncio.wait((waiting,))
            second.cancel()
            await asyncio.wait_for(server.broken.wait(), 180)
            assert [asked["rid"] for asked in server.bodies] == [["a", "bb"]]

    asyncio.run(go())


def test_a_connection_that_breaks_is_told_to_everyone() -> None:
    async def go() -> None:
        client = Client("http://127.0.0.1:9", "data", "admin")
        found = await asyncio.gather(*(heard(Together(client, 4), name) for name in ("a", "bb")), return_exceptions=True)
        assert all(isinstance(one, Exception) and not isinstance(one, PartedError | ServerSaidError) for one in found), found
        await client.close()

    asyncio.run(go())
