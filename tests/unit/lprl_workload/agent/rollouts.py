"""Rollout functions, tools and a reward as a user would write them, for tests."""

import asyncio
import itertools
import json
import os
import signal
import threading
import urllib.request
from collections.abc import Mapping
from typing import Any

from lprl_workload.agent.tool_calls import ToolCall

STOPS = tuple(range(6, 27))
"""Ids of the small tokenizer's digits and some letters: an untrained model's turns end after a token or two."""


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


async def two_turns(prompt: Any, policy: Any, tools: Any) -> None:
    """Draw, say something, draw again."""
    await policy.draw()
    policy.put([{"role": "user", "content": f"row {prompt.number} again"}])
    await policy.draw()


async def some_fail(prompt: Any, policy: Any, tools: Any) -> None:
    """Fail every third of them."""
    await two_turns(prompt, policy, tools)
    if prompt.seed % 3 == 0:
        raise LookupError("no board left")


async def all_fail(prompt: Any, policy: Any, tools: Any) -> None:
    """Fail."""
    raise LookupError("no board left")


async def nothing(prompt: Any, policy: Any, tools: Any) -> None:
    """Draw nothing."""


async def slow(prompt: Any, policy: Any, tools: Any) -> None:
    """Take a minute beside drawing."""
    await policy.draw()
    await asyncio.sleep(60)


async def greedy(prompt: Any, policy: Any, tools: Any) -> None:
    """Draw for ever, and never look whether the episode has ended."""
    while True:
        await policy.draw()
        policy.put([{"role": "user", "content": "more"}])


async def stubborn(prompt: Any, policy: Any, tools: Any) -> None:
    """Draw for ever, whatever is raised."""
    while True:
        try:
            await policy.draw()
            policy.put([{"role": "user", "content": "more"}])
        except Exception as error:
            assert error


async def catches_all(prompt: Any, policy: Any, tools: Any) -> None:
    """Swallow whatever drawing raises."""
    try:
        await policy.draw()
    except Exception:
        await asyncio.sleep(0)


async def with_tools(prompt: Any, policy: Any, tools: Any) -> None:
    """Call tools by itself."""
    text = await policy.draw()
    await tools.answer(policy, tools.calls(text))
    policy.put([{"role": "user", "content": (await tools.call("multiply", a=2, b=3)).text}]) if policy.turns[-1].drawn else None
    await policy.draw()


async def asks_a_server(prompt: Any, policy: Any, tools: Any) -> None:
    """Call a tool behind an address, whose process is stopped when eight calls were answered and goes on with the second step.

    That step's calls wait until it answers: what piled up while it stood still may take a busy machine longer than a call may.
    """
    await policy.draw()
    number, pid = next(_asked), int(os.environ["TOOL_SERVER"])
    while 8 < number <= 16 and len(_answered) < 8:
        await asyncio.sleep(0.01)
    if number in (9, 17):
        os.kill(pid, signal.SIGSTOP if number == 9 else signal.SIGCONT)
    if number == 17:
        asked = urllib.request.Request(os.environ["TOOL_URL"], b'{"arguments": {"a": 1}}')
        await asyncio.to_thread(lambda: urllib.request.urlopen(asked, timeout=600).read())
        _goes_on.set()
    while number > 17 and not _goes_on.is_set():
        await asyncio.sleep(0.01)
    await tools.answer(policy, [ToolCall("double", {"a": 2})])
    _answered.append(number)


_asked, _answered, _goes_on = itertools.count(1), list[int](), threading.Event()


async def wrong_signature(prompt: Any) -> None:
    """Take too little."""


def not_async(prompt: Any, policy: Any, tools: Any) -> None:
    """Wait in a thread."""


def judge(prompt: str, response: str, label: str | None, metadata: Mapping[str, Any]) -> float:
    """A reward that looks at the whole episode."""
    turns = metadata["turns"]
    assert turns[0]["role"] == "assistant"
    assert turns[-1] == {"role": "assistant", "text": response}
    assert all(turn["text"].startswith("row ") for turn in turns if turn["role"] == "user")
    return len(turns) + sum(map(ord, response)) % 7


RELEASED, ENDED = threading.Event(), list[int]()


def hang(seed: int) -> None:
    """Wait for what does not come while the run lasts."""
    RELEASED.wait(600)
    ENDED.append(seed)


async def rough(prompt: Any, policy: Any, tools: Any) -> None:
    """Wait for a task that was cancelled, or in a thread that never returns."""
    await policy.draw()
    if prompt.seed % 4 == 0:
        task = asyncio.ensure_future(asyncio.sleep(60))
        task.cancel()
        await task
    if prompt.seed % 4 == 1:
        await asyncio.to_thread(hang, prompt.seed)


WAITING, MAY_END = threading.Semaphore(0), threading.Event()
"""One for every episode that waits; set: nothing waits any more."""


def minute() -> str:
    """Answer when the run is long over."""
    MAY_END.wait(600)
    return "late"


async def long_minute() -> str:
    """Answer when the run is long over, in the event loop."""
    while not MAY_END.is_set():
        await asyncio.sleep(0.05)
    return "late"


async def waits(prompt: Any, policy: Any, tools: Any) -> None:
    """Wait for a function, an address, the event loop or a thread of its own, from the sixth row on."""
    await policy.draw()
    kinds = ("minute", "long_minute", "address", "")
    if prompt.number >= int(os.environ["WAITS_FROM"]) and not MAY_END.is_set():
        WAITING.release()
        kind = kinds[prompt.seed % 4]
        await (tools.call(kind) if kind else asyncio.to_thread(minute))


async def swallows(prompt: Any, policy: Any, tools: Any) -> None:
    """Go on although it was cancelled."""
    try:
        await slow(prompt, policy, tools)
    except asyncio.CancelledError:
        await policy.draw()


async def breaks(prompt: Any, policy: Any, tools: Any) -> None:
    """Break because it was cancelled."""
    try:
        await slow(prompt, policy, tools)
    except asyncio.CancelledError as error:
        raise LookupError("no board left") from error


async def counts(prompt: Any, policy: Any, tools: Any) -> None:
    """Call the tool in this episode's sandbox twice: it counts from one."""
    text = await policy.draw()
    for wanted in (1, 2):
        found = json.loads((await tools.call("count")).text)
        assert found["calls"] == wanted
    await tools.answer(policy, [ToolCall("count", {}), ToolCall("count", {})])
    assert text is not None
