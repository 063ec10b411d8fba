"""Workload commands as forked processes that can be killed at any moment."""

import os
import subprocess
import sys

FORKER = """
import os, signal, sys, time
import torch
torch.set_num_threads(1)
import importlib
importlib.import_module(sys.argv[1])
from lprl_workload.__main__ import main
for line in sys.stdin:
    delay, *arguments = line.split()
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os._exit(main(arguments))
    end = time.monotonic() + float(delay)
    ended, status = os.waitpid(pid, os.WNOHANG)
    while not ended and time.monotonic() < end:
        time.sleep(0.001)
        ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Forker:
    """Runs workload commands in processes forked from one that has imported `module`, and kills them.

    So that every moment lies in the work and not in `import torch`.
    """

    def __init__(self, module: str, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", FORKER, module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LPRL_TERMINATION_LOG": os.devnull, **env},
            start_new_session=True,
        )

    def run(self, command: str, kill_after_s: float = 300.0) -> int:
        """Return the exit code; negative is the signal."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{kill_after_s} {command}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        """End the forking process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)
