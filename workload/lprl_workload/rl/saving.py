"""The run's checkpoints as the loop sees them: where it goes on from, and what it leaves behind."""

from dataclasses import dataclass
from pathlib import Path

from lprl_api.checkpoint_ref import CheckpointRef
from lprl_api.derived.run_folder import step_name
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.checkpoint.store import CheckpointStore
from lprl_workload.rl.groups import TrainGroup
from lprl_workload.rl.run_state import RunState, origin

TRAINER, MODEL = "trainer", "model"
"""Folders of a checkpoint: the ranks' states, and the BF16 Hugging Face model."""


@dataclass(slots=True)
class Saving:
    """Writes checkpoints of a run and goes back to them."""

    run: RunConfig
    trainer: TrainGroup
    store: CheckpointStore
    load_from: Path | None = None
    """Checkpoint to begin from without one of its own."""
    recorded_step: int = 0
    """Of a checkpoint known to exist."""
    saved: RunState | None = None
    """What the newest checkpoint of this run holds."""

    def resume(self) -> tuple[Path | None, RunState]:
        """Have the trainer load the newest intact checkpoint (of this run, else of `load_from`); returns it and the state it holds.

        Without one: None, and the state of a run that begins. Raises UserError when one is known to exist and is not there.
        """
        found = self.store.newest()
        if found is None and self.recorded_step:
            raise self.store.nothing_to_resume(self.recorded_step)
        folder, state = origin(found, self.load_from)
        if folder:
            self.trainer.load(folder / TRAINER)
        self.saved = state if found else None
        return folder, state

    def go_back(self, at_most: int) -> RunState:
        """Have the trainer load the newest intact checkpoint of step <= `at_most`, else begin anew; returns the state there."""
        found = self.store.newest(at_most=at_most)
        folder, state = origin(found, self.load_from)
        if folder is None:
            self.trainer.rebuild()
        else:
            self.trainer.load(folder / TRAINER)
        return state

    def save(self, state: RunState) -> None:
        """Write everything needed to go on exactly from `state`, which the trainer is in."""

        def write(folder: Path) -> None:
            for name in (TRAINER, MODEL):
                (folder / name).mkdir()
            self.trainer.save(folder / TRAINER)
            self.trainer.export(folder / MODEL)
            state.write(folder)

        self.store.save(state.step, write)
        self.saved, self.recorded_step = state, state.step

    def reference(self) -> CheckpointRef | None:
        """Return the newest checkpoint, as reports tell of it."""
        if self.saved is None:
            return None
        return CheckpointRef(step=self.saved.step, path=f"{self.run.checkpoint.directory}/{step_name(self.saved.step)}")
