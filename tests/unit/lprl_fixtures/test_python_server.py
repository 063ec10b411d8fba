"""The tool that runs Python: over HTTP, as an episode asks it."""

import json
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from lprl_fixtures.python_server import PythonServer


@pytest.fixture
def url() -> Iterator[str]:
    with PythonServer(0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def ask(url: str, arguments: Any) -> Any:
    body = json.dumps({"name": "python", "arguments": arguments}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=30) as answer:
        return json.load(answer)


def test_variables_stay_and_what_is_printed_is_the_answer(url: str) -> None:
    assert ask(url, {"code": "a = 20"}) == {"result": ""}
    assert ask(url, {"code": "def twice(n):\n    return 2 * n\nprint(twice(a) + 2)"}) == {"result": "42\n"}


@pytest.mark.parametrize(
    ("code", "error"), [("1 / 0", "ZeroDivisionError: division by zero"), ("raise SystemExit(3)", "SystemExit: 3"), (7, "code is a text")]
)
def test_what_goes_wrong_is_told_and_the_next_call_is_answered(url: str, code: Any, error: str) -> None:
    assert ask(url, {"code": code}) == {"error": error}
    assert ask(url, {"code": "print('here')"}) == {"result": "here\n"}
