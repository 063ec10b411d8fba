"""A real tool server that is stopped (SIGSTOP): calls end within their limit as failures, and the tool works when the server goes on."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.lprl_workload.agent.test_run import ROLLOUTS, Ran
from tests.unit.lprl_workload.agent.test_tool_loop import CALL, Played
from tests.unit.lprl_workload.agent.test_tool_loop import run as rolled

from lprl_api.spec import episode as spec
from lprl_fixtures.runs import write_inputs
from lprl_workload.agent import runner
from lprl_workload.agent.tool import Answer
from lprl_workload.agent.tool_http import HttpTool
from lprl_workload.process.movement import here

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


def stop(pid: int) -> None:
    """Stop a child of this process and wait until all of its threads stand still: the signal alone comes back sooner."""
    os.kill(pid, signal.SIGSTOP)
    assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])


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
        stop(pid)
        began = time.monotonic()
        assert await calls() == [Answer(f"error: double: no answer within {LIMIT_S:g} s", "failed")] * 8
        assert time.monotonic() - began < LIMIT_S + 10
        os.kill(pid, signal.SIGCONT)
        assert await answered() == well, "connections of before are of no harm"
        await tool.close()

    asyncio.run(asyncio.wait_for(run(), 180))


def test_a_server_that_stands_still_fails_the_episode_within_its_limit(server: tuple[int, str]) -> None:
    def tool(limit_s: float) -> HttpTool:
        told = {"description": "Multiply.", "parameters": {"type": "object"}}
        return HttpTool(spec.Tool(name="multiply", url=server[1], timeoutSeconds=limit_s, **told), "episode.tools[0]", None)

    well = rolled(Played([CALL, "It is 42."]), [tool(120.0)])
    assert (well.finish, well.counts) == ("stop", {"ok": 1})
    stop(server[0])
    began = time.monotonic()
    hung = rolled(Played([CALL, "never said"]), [tool(0.5)])
    assert time.monotonic() - began < 60, "not the minutes a socket would wait"
    assert (hung.finish, hung.counts) == ("failed", {"failed": 1})
    assert hung.failures == ["tool multiply: error: multiply: no answer within 0.5 s"]


def test_a_run_whose_tool_server_stops_counts_and_tells_the_episodes_and_goes_on(
    server: tuple[int, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The whole path: the engine is not blamed for what it waits for, and the next step has its tool again."""
    monkeypatch.setenv("LPRL_VOLUMES_ROOT", str(tmp_path))
    monkeypatch.setenv("TOOL_SERVER", str(server[0]))
    monkeypatch.setenv("TOOL_URL", server[1])
    write_inputs(tmp_path, train=8, heldout=4)
    told = {"description": "Doubles.", "parameters": {"type": "object"}, "timeout_seconds": 30, "retries": 0}
    tools = [{"name": "double", "url": server[1], **told}]
    episode = {"type": "python", "function": f"{ROLLOUTS}:asks_a_server", "tools": tools, "max_failed_fraction": 1.0}
    before = here.moved.count
    found = Ran(tmp_path, "stops", episode, {"data": {"reward": {"function": "lprl_fixtures.runs:even_share"}}, "evaluation": None}).go()
    failed = [row["failed_episodes"] for row in found.rows]
    assert 0 < failed[0] < 16 and failed[1] == 0, failed
    episodes = found.reporter.progress.episodes
    assert episodes is not None and here.moved.count > before
    assert "tool double: error: double: no answer within 30 s" in caplog.text


class Talk:
    """An episode that waits for its tool, or draws."""

    drawing = False


def test_waiting_for_a_tool_is_movement_and_an_engine_that_does_not_draw_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "BESIDE_S", 0.01)
    talks: Any = [Talk(), Talk()]

    async def moved() -> bool:
        before = here.moved.count
        noting = asyncio.create_task(runner._note_waiting(talks))
        await asyncio.sleep(0.2)
        noting.cancel()
        return here.moved.count > before

    assert asyncio.run(moved())
    for talk in talks:
        talk.drawing = True
    assert not asyncio.run(moved())
