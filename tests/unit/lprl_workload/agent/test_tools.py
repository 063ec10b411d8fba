"""Tools: real functions and a real HTTP server; each call ends as an answer, the model's mistake, or a failure, within its time."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import TypeAdapter

from lprl_api.errors import UserError
from lprl_api.spec import episode as spec
from lprl_workload.agent import tool_python
from lprl_workload.agent.tool import Answer, ToolError
from lprl_workload.agent.tool_http import HttpTool
from lprl_workload.agent.tool_python import PythonTool

HERE = __name__
WHERE = "episode.tools[0]"
RELEASED = threading.Event()


def multiply(a: int, b: int = 2) -> int:
    """Multiply two numbers.

    More that the model is not told.
    """
    return a * b


async def wait(seconds: float) -> str:
    """Wait."""
    await asyncio.sleep(seconds)
    return "done"


def block(seconds: float) -> str:
    """Block a thread."""
    RELEASED.wait(seconds)
    return "done"


def refuse(what: str) -> str:
    """Refuse everything."""
    raise ToolError(f"not {what}")


def broken(what: str) -> str:
    """Break."""
    raise KeyError(what)


def validates(seconds: float) -> int:
    """Read what its own service said, which is no number."""
    return TypeAdapter(int).validate_python("no number")


async def validates_later(seconds: float) -> int:
    """Do so in the event loop."""
    await asyncio.sleep(0)
    return validates(seconds)


def silent(what: str) -> str:
    return what


def by_place(*numbers: int) -> int:
    """Take numbers."""
    return sum(numbers)


def strange(what: threading.Lock) -> str:
    """Take what JSON has not."""
    return str(what)


def made(function: str, **changes: Any) -> PythonTool:
    return PythonTool(spec.Tool(name="t", function=f"{HERE}:{function}", **changes), WHERE)


def called(tool: Any, **arguments: Any) -> Answer:
    async def run() -> Answer:
        try:
            found: Answer = await tool.call(arguments)
        finally:
            await tool.close()
        return found

    return asyncio.run(run())


def test_a_function_tells_its_schema_and_is_called_with_checked_arguments() -> None:
    tool = made("multiply")
    assert tool.schema["function"]["description"] == "Multiply two numbers."
    assert tool.schema["function"]["parameters"]["required"] == ["a"]
    assert called(tool, a=6, b=7) == Answer("42")
    assert called(tool, a="6") == Answer("12")


@pytest.mark.parametrize(("arguments", "said"), [({}, "a: "), ({"a": "six"}, "a: "), ({"a": 1, "c": 2}, "c: "), ({"b": 1}, "a: ")])
def test_wrong_arguments_are_the_models_mistake(arguments: dict[str, Any], said: str) -> None:
    answer = called(made("multiply"), **arguments)
    assert answer.how == "error"
    assert said in answer.text


def test_a_tool_may_refuse_and_a_broken_one_fails() -> None:
    assert called(made("refuse"), what="now") == Answer("error: not now", "error")
    answer = called(made("broken"), what="it")
    assert answer.how == "failed" and "KeyError" in answer.text


@pytest.mark.parametrize("function", ["validates", "validates_later"])
def test_what_a_tool_itself_finds_invalid_is_its_own_failure_and_no_mistake_of_the_model(function: str) -> None:
    answer = called(made(function), seconds=1)
    assert answer.how == "failed" and "ValidationError" in answer.text and "valid integer" in answer.text
    wrong = called(made(function), seconds="soon")
    assert wrong.how == "error" and wrong.text.startswith("error: seconds: ")


@pytest.fixture
def held() -> Iterator[None]:
    """Blocked threads stay so until the test has ended."""
    RELEASED.clear()
    yield
    RELEASED.set()


@pytest.mark.parametrize("function", ["wait", "block"])
def test_no_call_outlives_its_time_limit(function: str, held: None) -> None:
    tool = made(function, timeoutSeconds=0.2)
    started = time.monotonic()
    answer = called(tool, seconds=600)
    assert answer == Answer("error: t did not answer within 0.2 s", "failed")
    assert time.monotonic() - started < 300
    assert called(made(function, timeoutSeconds=300), seconds=0.01) == Answer("done")


def test_functions_that_never_return_end_the_run_at_last(monkeypatch: pytest.MonkeyPatch, held: None) -> None:
    monkeypatch.setattr(tool_python, "STUCK_CALLS", 2)
    tool = made("block", timeoutSeconds=0.05)

    async def run() -> None:
        for _ in range(2):
            assert (await tool.call({"seconds": 600})).how == "failed"
        with pytest.raises(UserError, match=r"episode\.tools\[0\]\.function.*never returned"):
            await tool.call({"seconds": 600})

    asyncio.run(run())


@pytest.mark.parametrize(
    ("function", "said"),
    [("silent", "no docstring"), ("by_place", "by place"), ("strange", "types JSON cannot say"), ("missing", "has no 'missing'")],
)
def test_what_cannot_be_a_tool_is_refused_by_name(function: str, said: str) -> None:
    with pytest.raises(UserError, match=r"episode\.tools\[0\]\.function") as found:
        made(function)
    assert said in str(found.value)


class Handler(BaseHTTPRequestHandler):
    """Answers as the test wants, by the tool's argument."""

    seen: list[tuple[dict[str, Any], str | None]] = []
    busy = 0

    def do_POST(self) -> None:
        """Answer."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Handler.seen.append((asked, self.headers.get("Authorization")))
        how = asked["arguments"].get("how")
        if how == "slow":
            time.sleep(1.5)
        if how == "busy" and Handler.busy:
            Handler.busy -= 1
            self.send_error(503)
            return
        body = {"error": b'{"error": "no such city"}', "text": b"hello", "big": b'{"result": "' + b"x" * (2 << 20) + b'"}'}
        found = body.get(str(how), json.dumps({"result": {"sum": 3} if how != "words" else "sunny"}).encode())
        self.send_response(200)
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        with suppress(OSError):  # who asked may have given up
            self.wfile.write(found)

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/tool"
    server.shutdown()


def remote(address: str, authorization: str | None = None, **changes: Any) -> HttpTool:
    told = {"description": "Answers.", "parameters": {"type": "object"}, **changes}
    return HttpTool(spec.Tool(name="t", url=address, **told), WHERE, authorization)


@pytest.mark.parametrize(
    ("how", "answer"),
    [
        ("words", Answer("sunny")),
        ("json", Answer('{"sum": 3}')),
        ("error", Answer("error: no such city", "error")),
        ("text", Answer('error: t: HTTP 200 without {"result": ...}', "failed")),
        ("big", Answer("error: t answered more than 1048576 bytes", "failed")),
    ],
)
def test_an_address_answers_or_refuses(address: str, how: str, answer: Answer) -> None:
    assert called(remote(address), how=how) == answer


def test_calls_of_an_address_fill_no_log(address: str, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("httpx2").setLevel(logging.NOTSET)
    with caplog.at_level(logging.INFO):
        assert called(remote(address), how="words") == Answer("sunny")
    assert not caplog.records


def test_a_busy_address_is_asked_again_and_a_silent_one_given_up(address: str) -> None:
    Handler.busy = 2
    assert called(remote(address), how="busy") == Answer('{"sum": 3}')
    Handler.busy = 9
    assert called(remote(address, retries=1), how="busy") == Answer("error: t: HTTP 503", "failed")
    assert called(remote(address, timeoutSeconds=0.3), how="slow").how == "failed"
    assert called(remote("http://127.0.0.1:9/none", retries=0), how="x").how == "failed"


def test_several_batches_call_an_address_at_once_each_in_a_loop_of_its_own(address: str) -> None:
    tool = remote(address)

    async def calls() -> list[Answer]:
        found = [await tool.call({"how": "words"}) for _ in range(3)]
        await tool.close()
        return found

    with ThreadPoolExecutor(4) as pool:
        answers = [answer for found in pool.map(lambda _: asyncio.run(calls()), range(8)) for answer in found]
    assert answers == [Answer("sunny")] * 24


def test_a_secret_is_sent_and_never_over_plain_http(address: str) -> None:
    secret = {"headersSecret": {"name": "s", "key": "k"}}
    assert called(remote(address, "Bearer abc", **secret), how="words") == Answer("sunny")
    assert Handler.seen[-1][1] == "Bearer abc"
    with pytest.raises(UserError, match="over plain http"):
        remote("http://tools.example/t", "Bearer abc", **secret)
    with pytest.raises(UserError, match=r"headersSecret: its value is missing"):
        remote(address, None, **secret)


@pytest.mark.parametrize("url", ["tools.example/t", "ftp://tools.example/", "http://", "file:///etc/passwd"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UserError, match=r"episode\.tools\[0\]\.url"):
        remote(url)


def test_an_address_must_be_described() -> None:
    with pytest.raises(UserError, match="says nothing of itself"):
        HttpTool(spec.Tool(name="t", url="http://127.0.0.1:9/"), WHERE, None)
