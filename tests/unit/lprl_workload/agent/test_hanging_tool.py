"""A tool's server that stands still (SIGSTOP of a real process): bounded by its time limit, counted, and told."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from tests.unit.lprl_workload.agent.test_tool_loop import CALL, Played, run

from lprl_api.spec import episode as spec
from lprl_workload.agent.tool_http import HttpTool

SERVER = """
import json
from http.server import BaseHTTPRequestHandler, HTTPServer

class Answers(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["arguments"]
        body = json.dumps({"result": asked["a"] * asked["b"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

server = HTTPServer(("127.0.0.1", 0), Answers)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process, f"http://127.0.0.1:{int(process.stdout.readline())}/"
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()
    process.stdout.close()


def tool(url: str, limit_s: float) -> HttpTool:
    told = {"description": "Multiply.", "parameters": {"type": "object"}}
    return HttpTool(spec.Tool(name="multiply", url=url, timeoutSeconds=limit_s, **told), "episode.tools[0]", None)


def test_a_server_that_stands_still_fails_the_episode_within_its_limit(server: tuple[subprocess.Popen[str], str]) -> None:
    process, url = server
    answered = run(Played([CALL, "It is 42."]), [tool(url, 120.0)])
    assert (answered.finish, answered.counts) == ("stop", {"ok": 1})
    process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    hung = run(Played([CALL, "never said"]), [tool(url, 0.5)])
    assert time.monotonic() - began < 60, "not the minutes a socket would wait"
    assert (hung.finish, hung.counts) == ("failed", {"failed": 1})
    assert hung.failures == ["tool multiply: error: multiply: no answer within 0.5 s"]
