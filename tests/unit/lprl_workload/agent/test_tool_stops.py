"""A real tool server that is stopped (SIGSTOP): calls end within their limit as failures, and the tool works when the server goes on."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from lprl_api.spec import episode as spec
from lprl_workload.agent.tool import Answer
from lprl_workload.agent.tool_http import HttpTool

LIMIT_S = 1.0
SERVER = """
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = json.dumps({"result": asked["arguments"]["a"] * 2}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        self.wfile.write(found)

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture
def server() -> Iterator[tuple[int, str]]:
    """A tool's process: its id and address."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.pid, f"http://127.0.0.1:{int(process.stdout.readline())}/tool"
        process.kill()


@pytest.mark.parametrize("retries", [0, 3])
def test_calls_of_a_stopped_server_fail_within_their_limit_and_later_ones_are_answered(server: tuple[int, str], retries: int) -> None:
    pid, url = server
    told = {"description": "Doubles.", "parameters": {"type": "object"}, "timeoutSeconds": LIMIT_S, "retries": retries}
    tool = HttpTool(spec.Tool(name="double", url=url, **told), "episode.tools[0]", None)

    async def calls() -> list[Answer]:
        return list(await asyncio.gather(*(tool.call({"a": n}) for n in range(8))))

    async def answered() -> list[Answer]:
        """A busy machine may not answer eight calls in a second."""
        found = await calls()
        while any(answer.how != "ok" for answer in found):
            found = await calls()
        return found

    async def run() -> None:
        well = [Answer(str(2 * n)) for n in range(8)]
        assert await answered() == well
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        assert await calls() == [Answer(f"error: double: no answer within {LIMIT_S:g} s", "failed")] * 8
        assert time.monotonic() - began < LIMIT_S + 10
        os.kill(pid, signal.SIGCONT)
        assert await answered() == well, "connections of before are of no harm"
        await tool.close()

    asyncio.run(asyncio.wait_for(run(), 180))
