"""Workload commands as forked processes that can be killed at any moment."""

import os
import subprocess
import sys
from collections.abc import Sequence

FORKER = """
import os, signal, sys, time
import torch
torch.set_num_threads(1)
import glob, importlib
for module in sys.argv[1:]:
    importlib.import_module(module)
from lprl_workload.__main__ import main
for line in sys.stdin:
    delay, pattern, *arguments = line.split()
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os._exit(main(arguments))
    armed = pattern == "-"
    end = time.monotonic() + float(delay)
    ended, status = os.waitpid(pid, os.WNOHANG)
    while not ended and not (armed and time.monotonic() >= end):
        if not armed and glob.glob(pattern):
            armed, end = True, time.monotonic() + float(delay)
        time.sleep(0.001)
        ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Forker:
    """Runs workload commands in processes forked from one that has imported `modules`, and kills them.

    So that every moment lies in the work and not in `import torch`.
    """

    def __init__(self, modules: Sequence[str], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", FORKER, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LPRL_TERMINATION_LOG": os.devnull, **env},
            start_new_session=True,
        )

    def run(self, command: str, kill_after_s: float = 600.0, once: str = "-") -> int:
        """Return the exit code; negative is the signal. With `once`, time counts from the first path that matches this pattern.

        A moment named by what is on disk stays in the middle of the work on a machine of any speed; one drawn from a clock does not.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{kill_after_s} {once} {command}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        """End the forking process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)
