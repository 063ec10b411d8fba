"""The run's checkpoints as the loop sees them: where it goes on from, and what it leaves behind.

A checkpoint is begun with a copy of the state, written by the ranks while the run goes on, and published when all parts are durable:
looked for at every turn of the loop, waited for before the next checkpoint, a suspension, a rollback and the end.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from lprl_api.checkpoint_ref import CheckpointRef
from lprl_api.derived.run_folder import step_name
from lprl_api.errors import UserError
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.checkpoint.manifest import Damage, Manifest, verify
from lprl_workload.checkpoint.store import CheckpointStore
from lprl_workload.config import resolve
from lprl_workload.io.parts import FileRecord
from lprl_workload.process.errors import DamagedError, TrainerLostError
from lprl_workload.rl.groups import TrainGroup
from lprl_workload.rl.run_state import RunState, origin

log = logging.getLogger(__name__)
TRAINER, MODEL = "trainer", "model"
"""Folders of a checkpoint: the ranks' states, and, where it was due, the BF16 Hugging Face model."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A checkpoint that the ranks are writing."""

    state: RunState
    files: tuple[FileRecord, ...]
    """Beside the ranks' own."""


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
    _pending: Pending | None = field(default=None, init=False)

    def resume(self) -> tuple[Path | None, RunState]:
        """Have the trainer load the newest intact checkpoint (of this run, else of `load_from`); returns it and the state it holds.

        Without one: None, and the state of a run that begins. Raises UserError when one is known to exist and is not there.
        """
        folder, state, own = self._load_newest(None)
        self.saved = state if own else None
        return folder, state

    def can_go_back(self, at_most: int) -> bool:
        """Return whether `go_back` loses no more than it must: a checkpoint of step <= `at_most` is there, or none was due by then."""
        self.finish()
        can = self.store.newest(at_most) is not None or self._none_due(at_most)
        if not can:
            log.warning("no intact checkpoint of step %d or before is left to go back to: nothing is begun anew for that", at_most)
        return can

    def go_back(self, at_most: int) -> RunState:
        """Have the trainer load the newest intact checkpoint of step <= `at_most`, else begin anew; returns the state there.

        Raises TrainerLostError when those that were there turn out to be damaged: the trainer holds part of one, and goes on from the
        newest checkpoint.
        """
        self.finish()
        folder, state, own = self._load_newest(at_most)
        if not own and not self._none_due(at_most):
            raise TrainerLostError(f"it holds part of a damaged checkpoint, and none of step {at_most} or before is left to go back to")
        if folder is None:
            self.trainer.rebuild()
        return state

    def begin(self, state: RunState, last: bool) -> None:
        """Begin to write everything needed to go on exactly from `state`, which the trainer is in, unless that was written last.

        With it a BF16 model folder where one is due: in the `last` one of a run, and every `exportEverySteps`.
        """
        if state in (self.saved, self._pending.state if self._pending else None):
            return
        self.finish()
        folder = self.store.begin(state.step)
        (folder / TRAINER).mkdir()
        self.trainer.begin_save(folder / TRAINER)
        files = [state.write(folder)]
        if self.exports(state, last):
            (folder / MODEL).mkdir()
            files += [record.below(MODEL) for record in self.trainer.export(folder / MODEL)]
        self._pending = Pending(state, tuple(files))

    def exports(self, state: RunState, last: bool) -> bool:
        """Return whether `begin` makes a BF16 model folder, for which the trainer's weights are read."""
        every = self.run.checkpoint.export_every_steps
        return last or (every is not None and state.step % every == 0)

    def look(self) -> bool:
        """Publish what is being written if all its parts are done; returns whether. Raises why a part could not be written."""
        return self._publish(wait=False)

    def finish(self) -> None:
        """Wait for what is being written, if anything is, and publish it. Raises why a part could not be written."""
        self._publish(wait=True)

    def settle(self) -> None:
        """Finish what is being written where the ranks still can: the run ends, or they are replaced, for another reason."""
        step = self._pending.state.step if self._pending else 0
        try:
            self.finish()
        except Exception as error:
            log.warning("the checkpoint of step %d could not be finished: %s", step, error)

    def reference(self) -> CheckpointRef | None:
        """Return the newest checkpoint, as reports tell of it."""
        if self.saved is None:
            return None
        return CheckpointRef(step=self.saved.step, path=f"{self.run.checkpoint.directory}/{step_name(self.saved.step)}")

    def _publish(self, wait: bool) -> bool:
        if self._pending is None:
            return False
        pending, self._pending = self._pending, None
        files = self.trainer.finish_save(wait)
        if files is None:
            self._pending = pending
            return False
        state, parts = pending.state, (record.below(TRAINER) for record in files)
        drift = state.guard.since_step if state.guard.state == "drifting" else None
        self.store.publish(state.step, (*pending.files, *parts), str(resolve(self.run.model_path)), self.run.shape, drift)
        self.saved, self.recorded_step = state, state.step
        return True

    def _none_due(self, step: int) -> bool:
        """Return whether no checkpoint was due by `step` since the run began."""
        first, every = RunState.read(self.load_from).step if self.load_from else 0, self.run.checkpoint.every_steps
        return step < (first // every + 1) * every

    def _load_newest(self, at_most: int | None) -> tuple[Path | None, RunState, bool]:
        """Have the trainer load where the run goes on from; returns that, its state, and whether it is this run's own checkpoint."""
        spoilt = False
        while True:
            found = self.store.newest(at_most)
            if found is None and self.recorded_step and at_most is None:
                raise self.store.nothing_to_resume(self.recorded_step)
            folder, state = origin(found, self.load_from)
            if folder is None and spoilt:
                self.trainer.rebuild()  # it holds part of what was damaged
            if folder is None or self._loaded(folder, found is not None):
                return folder, state, found is not None
            spoilt = True

    def _loaded(self, folder: Path, own: bool) -> bool:
        """Have the trainer load a checkpoint; false where it is this run's own and is damaged. Raises UserError for another's."""
        verdict = verify(folder, "sizes")
        try:
            if not isinstance(verdict, Manifest):
                raise DamagedError(verdict.reason)
            self.trainer.load(folder / TRAINER, verdict.below(TRAINER))
        except DamagedError as error:
            if not own:
                raise UserError(f"spec.checkpoint.loadFrom: {folder} is damaged ({error})", "name another step of that run") from error
            self.store.set_aside(Damage(folder, str(error)))
            return False
        return True
