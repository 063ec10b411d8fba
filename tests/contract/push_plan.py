"""What happens in a weight push between processes: how many ranks and engines there are, what goes wrong, and when."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lprl_fixtures.pushes import Mesh, moved
from lprl_workload.hf.folder import read_folder
from lprl_workload.hf.slots import per_expert
from lprl_workload.sync.manifest import ServedAs


@dataclass(frozen=True, slots=True)
class Fault:
    """Who fails how at its `at`-th bucket of a push, from 1."""

    who: str
    """`rank 1`, `engine 2`."""
    how: str
    """killed, or what its disk or engine raises: OSError."""
    at: int

    def now(self) -> None:
        """Do it."""
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(28, "No space left on device")


@dataclass(frozen=True, slots=True)
class Plan:
    """What every process knows from its start."""

    way: str
    folder: Path
    root: Path
    served_as: ServedAs
    mesh: Mesh

    def weights(self, version: int) -> dict[str, Tensor]:
        """Return the trainer's weights by the time of a version."""
        found = dict(sorted(item for stored in read_folder(self.folder) for item in per_expert(*stored)))
        return moved(found, 0.01 * version)
