"""What the loop itself remembers between steps: a small JSON document in every checkpoint."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from lprl_api.wire.progress import RewardSignal
from lprl_workload.checkpoint.manifest import Manifest
from lprl_workload.io.parts import FileRecord, write_part
from lprl_workload.metrics.stability import Guard

STATE_FILE = "state.json"


@dataclass(frozen=True, slots=True)
class RunState:
    """The loop's state after a finished step. Sampling needs no RNG state: seeds follow from step and prompt."""

    step: int = 0
    """Finished rollout steps."""
    position: int = 0
    """Prompts consumed since the start of the run."""
    weight_version: int = 0
    """Version of the weights after this step; 0 are the initial ones."""
    guard: Guard = field(default_factory=Guard)
    rewards: RewardSignal = field(default_factory=RewardSignal)
    """Whether the run's rewards differ, from its first step on."""
    effective_rollout: Literal["bf16", "fp8", "int4"] | None = None
    """Set when the guard changed what is served."""

    def write(self, folder: Path) -> FileRecord:
        """Write state.json into a checkpoint, durably."""
        return write_part(folder / STATE_FILE, _ADAPTER.dump_json(self, indent=1))

    @classmethod
    def read(cls, folder: Path) -> "RunState":
        """Read state.json of a checkpoint."""
        return _ADAPTER.validate_json((folder / STATE_FILE).read_bytes())


_ADAPTER = TypeAdapter(RunState)


def origin(found: tuple[Path, Manifest] | None, load_from: Path | None) -> tuple[Path | None, RunState]:
    """Return where a run goes on and its state there: its own checkpoint `found`, else the one it was begun from, else (None) untrained.

    The rewards of the run that it was begun from say nothing of this one's prompts.
    """
    if found is not None:
        return found[0], RunState.read(found[0])
    return load_from, replace(RunState.read(load_from), rewards=RewardSignal()) if load_from is not None else RunState()
