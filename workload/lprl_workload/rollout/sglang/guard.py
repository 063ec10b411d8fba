"""The parent of a server's processes: they end with whoever owns them, and their log holds no keys.

    python -m lprl_workload.rollout.sglang.guard < {"argv": [...], "log": PATH, "secrets": [...], "owner": PID}

The server gets a process group of its own. When standard input ends, the owner is gone, or the server ends by itself, the whole group
is killed, so that no scheduler keeps a GPU. Ends with the server's code. Small on purpose: nothing of torch is imported here.
"""

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import IO, Any

PR_SET_PDEATHSIG = 1
HIDDEN = b"***"
OWNER_POLL_S = 1.0
GRACE_S = 5.0
"""How long the log is read on after the server's end."""


def main() -> int:
    """Run the server that standard input describes."""
    told = json.loads(sys.stdin.buffer.readline())
    libc = ctypes.CDLL(None, use_errno=True)

    def die_with_guard() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    child = subprocess.Popen(
        told["argv"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=die_with_guard,
    )
    print(child.pid, flush=True)
    for target, given in ((_end_with_input, (child,)), (_end_with_owner, (child, told["owner"]))):
        threading.Thread(target=target, args=given, daemon=True).start()
    assert child.stdout is not None
    writer = threading.Thread(target=_write, args=(child.stdout, told["log"], told["secrets"]), daemon=True)
    writer.start()
    code = child.wait()
    kill_group(child.pid)
    writer.join(GRACE_S)
    return code if code >= 0 else 128 - code


def kill_group(group: int) -> None:
    """Kill every process of a group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _end_with_input(child: "subprocess.Popen[bytes]") -> None:
    while os.read(sys.stdin.fileno(), 1 << 12):  # not through its buffer, which nobody may hold when the interpreter ends
        pass
    kill_group(child.pid)


def _end_with_owner(child: "subprocess.Popen[bytes]", owner: int) -> None:
    while os.getppid() == owner:
        time.sleep(OWNER_POLL_S)
    kill_group(child.pid)


def _write(source: IO[bytes], path: str, secrets: list[str]) -> None:
    """Copy what the server writes, each line as it comes; progress bars end theirs with a carriage return."""
    hide = re.compile(b"|".join(re.escape(word.encode()) for word in secrets if word)) if any(secrets) else None
    with open(path, "ab", buffering=0) as log:
        rest = b""
        while block := _some(source):
            *lines, rest = re.split(b"[\r\n]", rest + block)
            for line in lines:
                log.write((hide.sub(HIDDEN, line) if hide else line) + b"\n")
        if rest:
            log.write((hide.sub(HIDDEN, rest) if hide else rest) + b"\n")


def _some(source: Any) -> bytes:
    found: bytes = source.read1(1 << 16)
    return found


if __name__ == "__main__":
    sys.exit(main())
