"""Workload commands as processes forked from one that has imported what they need: a run of seconds then takes no other four to import."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests import forking


def _enter(arguments: list[str], env: Mapping[str, str], log: str, threads: int) -> None:
    os.environ.clear()
    os.environ.update(env)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    if threads:
        import torch

        torch.set_num_threads(threads)
    from lprl_workload.__main__ import main

    os._exit(main(arguments))


class Forked:
    """`python -m lprl_workload ARGUMENTS`, with the part of subprocess.Popen the tests use."""

    def __init__(self, arguments: list[str], env: Mapping[str, str], log: Path, threads: int = 0) -> None:
        self._process = forking.context(forking.RUN).Process(target=_enter, args=(arguments, dict(env), str(log), threads))
        self._process.start()
        self.kill = self._process.kill
        self.terminate = self._process.terminate

    def poll(self) -> int | None:
        """Return the exit code (negative: the signal), None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; raises TimeoutExpired."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("lprl_workload", timeout or 0)
        return code
