"""Sandboxes of `lprl run --sandbox`: a process an episode, with the same limits; and what is left when a driver dies."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.lprl_workload.agent.rollouts import STOPS
from tests.unit.lprl_workload.agent.sandboxes import COUNTER, TOLD, claims, fake_api, tool, tool_server, tools_of
from tests.unit.lprl_workload.agent.test_run import ROLLOUTS, Ran
from tests.unit.lprl_workload.agent.test_sandbox_claims import episode, run

from lprl_api.errors import UserError
from lprl_api.names import ENV_SANDBOX_COMMANDS
from lprl_fixtures.runs import write_inputs
from lprl_workload.agent.sandbox_processes import Processes
from lprl_workload.launch.sandboxes import open_clerk


@pytest.fixture
def source(tmp_path: Path) -> Processes:
    (tmp_path / "counter.py").write_text(COUNTER)
    return Processes({"counters": {"command": "python counter.py {port}", "folder": str(tmp_path)}})


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_every_episode_has_a_process_of_its_own_with_no_secret_of_the_job(source: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret")

    async def all_at_once(tools: Any) -> list[Any]:
        found = await asyncio.gather(*(episode(tools) for _ in range(5)))
        while any(alive(each[0]["pid"]) for each in found):
            await asyncio.sleep(0.01)
        return found

    with tools_of(source, tool(1, max_concurrent=2, claim_seconds=120)) as tools:
        found = run(all_at_once(tools))
    assert [[said["calls"] for said in each] for each in found] == [[1, 2, 3]] * 5 and len({each[0]["pid"] for each in found}) == 5
    assert all("WANDB_API_KEY" not in said["env"] and "TMPDIR" in said["env"] for each in found for said in each)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("python -c 'raise LookupError(\"no game\")'", "ended with 1 before it listened: LookupError: no game"),
        ("python -c 'import time; time.sleep(600)' {port}", "did not listen at port"),
        ("no-such-program {port}", "no-such-program cannot be started"),
    ],
)
def test_a_process_that_is_no_tool_fails_the_call_in_its_own_words(tmp_path: Path, command: str, words: str) -> None:
    source = Processes({"counters": {"command": command, "folder": str(tmp_path)}})
    limit_s = 0.5 if "sleep" in command else 120
    with tools_of(source, tool(1, claim_seconds=limit_s, retries=0)) as tools:
        answer = run(episode(tools, calls=1))[0]
    assert answer.how == "failed" and words in answer.text


def test_outside_a_cluster_a_pool_without_a_command_is_refused_with_what_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    run_config: Any = SimpleNamespace(episode=SimpleNamespace(tools=[tool(8080)]))
    for told in ("", json.dumps({"others": {"command": "x", "folder": "/"}})):
        monkeypatch.setenv(ENV_SANDBOX_COMMANDS, told)
        with pytest.raises(UserError, match=r"episode\.tools\[0\]\.sandbox: there is no SandboxWarmPool counters") as error:
            open_clerk(run_config)
        assert "--sandbox 'counters=COMMAND ... {port}'" in str(error.value.remedy)


DRIVER = """
import asyncio, pathlib, sys
from tests.unit.lprl_workload.agent.sandboxes import claims, tool, tools_of

async def hold(tools):
    class Talk:
        counts = {}
    async with tools.opened(Talk()) as mine:
        print((await mine.call("count")).how, flush=True)
        await asyncio.sleep(600)

with tools_of(claims(sys.argv[1], pathlib.Path(sys.argv[2]), attempt=1), tool(int(sys.argv[3]))) as tools:
    asyncio.run(hold(tools))
"""


def test_what_a_driver_that_was_killed_left_is_ended_by_the_next_attempt(tmp_path: Path) -> None:
    with fake_api() as (api, url), tool_server() as port:
        line = [sys.executable, "-c", DRIVER, url, str(tmp_path), str(port)]
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[4]) as driver:
            assert driver.stdout is not None and driver.stdout.readline() == "ok\n"
            os.kill(driver.pid, signal.SIGKILL)
        left = set(api.claims)
        assert len(left) == 1
        with tools_of(claims(url, tmp_path, attempt=2), tool(port)) as tools:
            assert not api.claims
            assert run(episode(tools, calls=1))[0]["calls"] == 1
        assert not api.claims and api.made[-1]["metadata"]["name"] not in left


def test_a_run_gives_each_episode_its_process_and_tells_how_long_it_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole path in one process: engine, desk, clerk; calls are counted, and nothing is left."""
    monkeypatch.setenv("LPRL_VOLUMES_ROOT", str(tmp_path))
    (tmp_path / "counter.py").write_text(COUNTER)
    commands = {"counters": {"command": "python counter.py {port}", "folder": str(tmp_path)}}
    monkeypatch.setenv(ENV_SANDBOX_COMMANDS, json.dumps(commands))
    write_inputs(tmp_path, train=8, heldout=4)
    sandbox = {"warm_pool": "counters", "max_concurrent": 2, "claim_seconds": 120}
    episode = {"type": "python", "function": f"{ROLLOUTS}:counts", "tools": [{"name": "count", "sandbox": sandbox, **TOLD}]}
    changes = {"algorithm": {"steps": 1}, "data": {"reward": {"function": "lprl_fixtures.runs:even_share"}}, "evaluation": None}
    found = Ran(tmp_path, "counts", episode, {**changes, "sampling": {"max_response_tokens": 8, "stop_token_ids": STOPS}}).go()
    row = found.rows[-1]
    assert row["failed_episodes"] == 0 and row["tool_calls_ok"] == 32 and row["sandbox_wait_seconds"] > 0
    told = found.reporter.progress.episodes
    assert told is not None and told.sandbox_wait_seconds == row["sandbox_wait_seconds"]
