"""A server's processes end with their owner, whatever ends it, and their log holds no keys. The server: a stand-in of two processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lprl_workload.rollout.sglang.launched import Launched
from lprl_workload.rollout.sglang.process import Process

KEYS = {"api-key": "d-secret", "admin-api-key": "a-secret"}
SERVER = """
import json, os, subprocess, sys
keys = json.load(open(sys.argv[sys.argv.index("--config") + 1]))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("keys", keys["api-key"], keys["admin-api-key"], sys.argv[-1])
print("child", child.pid, flush=True)
if sys.argv[-1] == "fails":
    print("torch.OutOfMemoryError: CUDA out of memory.", end="", flush=True)
    sys.exit(3)
child.wait()
"""
OWNER = """
import json, sys, time
from pathlib import Path
from lprl_workload.rollout.sglang.process import Process
keys = {"api-key": "d-secret", "admin-api-key": "a-secret"}
found = Process(Path(sys.executable), ["stays"], json.loads(sys.argv[2]), keys, Path(sys.argv[1]))
print(found.group, flush=True)
time.sleep(600)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    package = tmp_path / "path" / "sglang"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "launch_server.py").write_text(SERVER)
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join([str(package.parent), *filter(None, sys.path)])}


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[[str], Process]]:
    made: list[Process] = []

    def begin(how: str) -> Process:
        made.append(Process(Path(sys.executable), [how], environment, KEYS, tmp_path / "server"))
        return made[-1]

    yield begin
    for each in made:
        each.stop()


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 180
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def child_of(process: Process) -> int:
    lines: list[str] = []
    eventually(lambda: bool(lines.extend(process.new_lines()) or [line for line in lines if line.startswith("child")]))
    return int(next(line for line in lines if line.startswith("child")).split()[1])


def test_a_server_is_killed_with_all_its_processes(start: Callable[[str], Process]) -> None:
    process = start("stays")
    child = child_of(process)
    assert process.code is None and not gone(child)
    process.stop()
    assert process.code == 128 + signal.SIGKILL
    eventually(lambda: gone(child))


def test_keys_reach_it_by_a_private_file_and_stay_out_of_arguments_and_log(start: Callable[[str], Process], tmp_path: Path) -> None:
    process = start("stays")
    child_of(process)
    text = process.log.read_text()
    assert "keys *** *** stays" in text and "secret" not in text
    (file,) = [path for path in (tmp_path / "server").iterdir() if "secret" in path.read_text()]
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"secret" not in Path(f"/proc/{process.group}/cmdline").read_bytes() + Path(f"/proc/{process.group}/environ").read_bytes()
    process.hide_keys()
    assert not file.exists()


def test_a_server_that_ends_by_itself_leaves_nobody_behind_and_its_last_words(start: Callable[[str], Process]) -> None:
    process = start("fails")
    child = child_of(process)
    assert process.wait(180) == 3
    eventually(lambda: gone(child))
    assert process.tail()[-1] == "torch.OutOfMemoryError: CUDA out of memory."


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_ends_with_the_process_that_owns_it_also_when_it_is_stopped(
    environment: dict[str, str], tmp_path: Path, how: signal.Signals
) -> None:
    told = [sys.executable, "-c", OWNER, str(tmp_path / "owned"), json.dumps(environment)]
    owner = subprocess.Popen(told, stdout=subprocess.PIPE, env=environment, text=True)
    assert owner.stdout is not None
    group = int(owner.stdout.readline())
    os.killpg(group, signal.SIGSTOP)
    owner.send_signal(how)
    owner.wait()
    eventually(lambda: gone(group))
    owner.stdout.close()


def test_a_signal_to_the_owners_process_group_leaves_nobody_behind(environment: dict[str, str], tmp_path: Path) -> None:
    """As `timeout` sends it: whoever watches the server must not end before it has ended all of it."""
    told = [sys.executable, "-c", OWNER, str(tmp_path / "owned"), json.dumps(environment)]
    owner = subprocess.Popen(told, stdout=subprocess.PIPE, env=environment, text=True, start_new_session=True)
    assert owner.stdout is not None
    group, log = int(owner.stdout.readline()), tmp_path / "owned" / "server.log"
    eventually(lambda: "child" in log.read_text())
    child = int(next(line for line in log.read_text().splitlines() if line.startswith("child")).split()[1])
    os.killpg(owner.pid, signal.SIGTERM)
    owner.wait()
    eventually(lambda: gone(group) and gone(child))
    owner.stdout.close()


def test_what_is_said_of_a_server_shows_no_key(start: Callable[[str], Process], tmp_path: Path) -> None:
    found = Launched(start("stays"), tmp_path, "http://127.0.0.1:1", "d-secret", "a-secret")
    assert "http://127.0.0.1:1" in repr(found) and "secret" not in repr(found)
