"""Workload commands as forked processes that can be killed at any moment."""

import glob
import os
import time
from collections.abc import Mapping
from pathlib import Path

from tests import forking
from tests.local.forked import Forked

LOOK_S = 0.001


class Forker:
    """Runs workload commands in processes forked from one that has imported what they need, and kills them.

    So that every moment lies in the work and not in `import torch`.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = {**os.environ, "LPRL_TERMINATION_LOG": os.devnull, **env}
        # The first one waits for those imports, and the time of a run is what moments are drawn from.
        first = forking.context(forking.RUN).Process(target=int)
        first.start()
        first.join()

    def run(self, command: str, kill_after_s: float = 600.0, once: str = "-") -> int:
        """Return the exit code; negative is the signal. With `once`, time counts from the first path that matches this pattern.

        A moment named by what is on disk stays in the middle of the work on a machine of any speed; one drawn from a clock does not.
        """
        process = Forked(command.split(), self._env, Path(os.devnull), threads=1)
        armed, end = once == "-", time.monotonic() + kill_after_s
        while (code := process.poll()) is None and not (armed and time.monotonic() >= end):
            if not armed and glob.glob(once):
                armed, end = True, time.monotonic() + kill_after_s
            time.sleep(LOOK_S)
        if code is None:
            process.kill()
            code = process.wait()
        return code
