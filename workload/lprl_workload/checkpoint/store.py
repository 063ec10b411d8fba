"""The run folder: step folders that are complete or absent, and the fence that keeps late attempts out.

A checkpoint is written into step-000020.a3.tmp (3 = the attempt) by everybody who has a part of it, hashed on the way, fsynced, and
renamed to step-000020 when all parts are there, which may be a step later. FENCE holds the newest attempt that opened the folder; an
older one is refused before it renames anything, so a process that outlived its attempt can at most leave a .tmp folder nobody reads.
"""

import logging
import os
import shutil
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path

from lprl_api.derived.run_folder import FENCE, step_name, steps_of
from lprl_api.errors import UserError
from lprl_api.model.model_shape import ModelShape
from lprl_workload.checkpoint.manifest import MANIFEST, Damage, How, Manifest, fsync, verify, write_manifest
from lprl_workload.io.parts import FileRecord
from lprl_workload.process.errors import FencedError

log = logging.getLogger(__name__)


def intact_checkpoint(path: Path, how: How = "full") -> tuple[Path, Manifest]:
    """Return the newest intact checkpoint of another run, read only: `path` is its run folder, or one step of it.

    Raises UserError when there is none, naming what is wrong with each candidate.
    """
    found = [path / step_name(step) for step in reversed(steps_of(path))]
    reasons = []
    for folder in [path] if (path / MANIFEST).exists() else found:
        verdict = verify(folder, how)
        if isinstance(verdict, Manifest):
            return folder, verdict
        reasons.append(f"{folder.name}: {verdict.reason}")
    raise UserError(
        f"spec.checkpoint.loadFrom: no intact checkpoint in {path} ({'; '.join(reasons) or 'no step folder'})",
        "name a run folder, or a step-NNNNNN folder of one",
    )


class CheckpointStore:
    """Checkpoints of one run, for one attempt."""

    def __init__(self, root: Path, attempt: int, keep: int) -> None:
        self.root = root
        self._attempt = attempt
        self._keep = keep

    def take_over(self) -> None:
        """Put this attempt's number into FENCE and clear what older ones left half-done; raises FencedError when a newer one is there."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.check_fence()
        aside = self.root / f"{FENCE}.a{self._attempt}"
        aside.write_text(f"{self._attempt}\n")
        fsync(aside)
        aside.replace(self.root / FENCE)
        fsync(self.root)
        for left in self.root.glob("step-*.tmp"):
            shutil.rmtree(left, ignore_errors=True)
        self._finish_replacements()

    def check_fence(self) -> None:
        """Raise FencedError when a newer attempt has taken over."""
        path = self.root / FENCE
        newest = int(path.read_text()) if path.exists() else self._attempt
        if newest > self._attempt:
            raise FencedError(f"{self.root}: attempt {newest} owns this folder, attempt {self._attempt} must not write", newest)

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint folder, ascending; whether they are intact is `newest`'s question."""
        return steps_of(self.root)

    def folder(self, step: int) -> Path:
        """Return the folder of a complete checkpoint."""
        return self.root / step_name(step)

    def begin(self, step: int) -> Path:
        """Return an empty folder to write this step's checkpoint into. Raises FencedError."""
        self.check_fence()
        aside = self._aside(step)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        return aside

    def publish(
        self, step: int, files: Iterable[FileRecord], source: str = "", shape: ModelShape | None = None, drift: int | None = None
    ) -> Manifest:
        """Make what was begun visible as this step's checkpoint, now that all its files are durable, and prune older ones.

        `source`, `shape`: of the model that is trained. `drift`: first step of a drift that lasts; the newest checkpoint before it is
        kept beyond `keep`. An existing checkpoint of the step (a rollback went back to it) is replaced. Raises FencedError.
        """
        self.check_fence()
        aside = self._aside(step)
        recorded = tuple(sorted(files, key=lambda record: record.path))
        manifest = Manifest(step=step, attempt=self._attempt, source=source, shape=shape, files=recorded)
        write_manifest(aside, manifest)
        self.check_fence()
        self._publish(aside, self.folder(step))
        self._prune({step, *[s for s in self.steps() if drift is not None and s < drift][-1:]})
        return manifest

    def newest(self, at_most: int | None = None) -> tuple[Path, Manifest] | None:
        """Return the newest checkpoint (of step <= `at_most`) whose files are there in their sizes, with the hashes of a sample.

        A damaged one is reported and left in place, renamed to NAME.damaged, and the one before it is taken.
        """
        for step in reversed(self.steps()):
            if at_most is not None and step > at_most:
                continue
            found = verify(self.folder(step), "sampled")
            if isinstance(found, Manifest):
                return self.folder(step), found
            self.set_aside(found)
        return None

    def nothing_to_resume(self, step: int) -> UserError:
        """Return the refusal to begin a run anew of which a checkpoint was written that is not there."""
        message = f"spec.checkpoint: {self.root} holds no intact checkpoint, though one of step {step} was written there"
        return UserError(message, "put it back, or the volume it is on; to begin at step 0 make the job anew")

    def drop_after(self, step: int) -> None:
        """Remove checkpoints newer than `step`, newest first (a rollback)."""
        self.check_fence()
        for later in reversed(self.steps()):
            if later > step:
                self._remove(later)
        fsync(self.root)

    def _aside(self, step: int) -> Path:
        return self.root / f"{step_name(step)}.a{self._attempt}.tmp"

    def _publish(self, aside: Path, final: Path) -> None:
        old = final.with_name(f"{final.name}.old")
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.rename(final, old)
        os.rename(aside, final)
        fsync(self.root)
        shutil.rmtree(old, ignore_errors=True)

    def _finish_replacements(self) -> None:
        """Undo or finish a replacement that was cut short between its two renames."""
        for old in self.root.glob("step-*.old"):
            final = old.with_suffix("")
            if final.exists():
                shutil.rmtree(old)
            else:
                os.rename(old, final)

    def _prune(self, spared: AbstractSet[int]) -> None:
        """Remove all but the newest `keep` checkpoints and `spared`: what a rollback published lies below steps it has yet to drop."""
        for step in self.steps()[: -self._keep]:
            if step not in spared:
                self._remove(step)

    def _remove(self, step: int) -> None:
        # Renamed first: a folder that is half deleted must not look complete.
        doomed = self.root / f"{step_name(step)}.a{self._attempt}.gone.tmp"
        shutil.rmtree(doomed, ignore_errors=True)
        os.rename(self.folder(step), doomed)
        shutil.rmtree(doomed)

    def set_aside(self, damage: Damage) -> None:
        """Rename a damaged checkpoint to NAME.damaged, and say so."""
        target = damage.folder.with_name(f"{damage.folder.name}.damaged")
        number = 1
        while target.exists():
            number += 1
            target = damage.folder.with_name(f"{damage.folder.name}.damaged{number}")
        log.error("checkpoint %s is damaged (%s); kept as %s, using the one before it", damage.folder.name, damage.reason, target.name)
        os.rename(damage.folder, target)
