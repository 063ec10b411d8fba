"""What trainers have in common, whatever runs their models: the end of an optimizer step, sleep, checkpoints in a thread."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lprl_api.derived.effective import context_length, most_drawn
from lprl_api.derived.residency import TrainPart
from lprl_api.spec.algorithm import Correction
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.config import ResolvedPaths
from lprl_workload.data import Metrics
from lprl_workload.io.parts import FileRecord
from lprl_workload.process.background import Background
from lprl_workload.process.errors import DamagedElsewhereError, DamagedError, FailedElsewhereError, NonFiniteError
from lprl_workload.sync.peers import Peers
from lprl_workload.train.diagnostics import TOKEN_SUMS, largest_difference, means, token_sums
from lprl_workload.train.group import Group
from lprl_workload.train.loss import Denominators, LossTerms, TokenBatch
from lprl_workload.train.masters import Masters
from lprl_workload.train.parking import Parking
from lprl_workload.train.schedule import learning_rate, total_steps
from lprl_workload.train.state import Snapshot, write_snapshot

TIS = Correction(type="tis")
"""What the stability guard switches on when the job configures no correction: weights truncated to [0, 2]."""


class StepSums:
    """What a rank adds up over the micro-batches of an optimizer step."""

    def __init__(self, device: torch.device) -> None:
        """Begin with nothing."""
        self.values = torch.zeros(1 + len(TOKEN_SUMS), dtype=torch.float64, device=device)
        """The loss, then TOKEN_SUMS."""
        self.largest = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, terms: LossTerms, tokens: TokenBatch) -> None:
        """Take one micro-batch."""
        self.values += torch.cat([terms.loss.detach().double().reshape(1), token_sums(tokens, terms)])
        self.largest = torch.maximum(self.largest, largest_difference(tokens))


class RankActor(ABC):
    """One trainer rank (TrainActor), but for its model."""

    def __init__(self, run: RunConfig, paths: ResolvedPaths, group: Group) -> None:
        """Take the run, its folders on this machine and the ranks, which were joined."""
        self._run, self._paths, self._group = run, paths, group
        self._correction = run.algorithm.correction
        self._parked_reference: Parking | None = None
        self._peers: Peers | None = None
        self._steps = 0
        self._writing: Background[tuple[FileRecord, ...]] | None = None

    @property
    @abstractmethod
    def masters(self) -> Masters:
        """The optimizer and what it trains."""

    @abstractmethod
    def _of_reference(self) -> list[Tensor]:
        """Return the reference's weights on this rank; none before it was loaded."""

    @abstractmethod
    def _snapshot(self) -> Snapshot:
        """Copy what this rank writes of a checkpoint into host memory."""

    @abstractmethod
    def _read_state(self, directory: Path, records: Sequence[FileRecord]) -> int:
        """Restore what was saved into masters and generators; returns the optimizer steps. No collective."""

    @property
    def optimizer_steps(self) -> int:
        """Optimizer steps done since the start of the run."""
        return self._steps

    def set_correction(self, enabled: bool) -> None:
        """Switch truncated importance sampling on (a configured correction stays as it is) or back to the configured one."""
        configured = self._run.algorithm.correction
        self._correction = TIS if enabled and configured.type == "none" else configured

    def peers(self) -> Peers:
        """Return the ranks of a push; the first call on every rank makes their group."""
        if self._peers is None:
            self._peers = self._group.peers()
        return self._peers

    def sleep(self, parts: frozenset[TrainPart]) -> None:
        """Free the device memory of parts; see TrainActor."""
        for part in sorted(parts - {"reference"}):
            self.masters.sleep(part)
        if "reference" in parts and (of_reference := self._of_reference()):
            self._parked_reference = self._parked_reference or Parking(of_reference)
            self._parked_reference.sleep()
        if self._group.device.type == "cuda":
            torch.cuda.empty_cache()  # others wait for it

    def wake(self, parts: frozenset[TrainPart]) -> None:
        """Take it back; see TrainActor."""
        for part in sorted(parts - {"reference"}):
            self.masters.wake(part)
        if "reference" in parts and self._parked_reference is not None:
            self._parked_reference.wake()

    def _require_reference(self) -> None:
        """Raise RuntimeError when the reference sleeps."""
        if self._parked_reference is not None and self._parked_reference.asleep:
            raise RuntimeError("the trainer's reference sleeps: call wake first")

    def begin_save(self, directory: Path) -> None:
        """Copy this rank's part of the state and begin to write it; see TrainActor."""
        self._finish_writing()
        snapshot = self._snapshot()
        self._writing = Background(lambda: write_snapshot(directory, snapshot), "lprl-save")

    def finish_save(self, wait: bool) -> tuple[FileRecord, ...] | None:
        """Return the files that were begun once they are durable; see TrainActor."""
        if self._writing is None:
            raise RuntimeError("finish_save before begin_save")
        return self._writing.result() if wait or self._writing.done else None

    def load(self, directory: Path, records: Sequence[FileRecord] = ()) -> None:
        """Restore what was saved, by any number of ranks; on CPU training then goes on bit-identically.

        Raises DamagedError on every rank when what one read is not what was written; when some could not read for another reason, that
        there and FailedElsewhereError on the others: the checkpoint may be as good as ever.
        """
        self.masters.require("weights", "optimizer")
        failure: Exception | None = None
        try:
            self._steps = self._read_state(directory, records)
        except Exception as error:
            failure = error
        # Refreshing is a collective where ranks share parameters: they begin it together, or not at all.
        flags = [float(isinstance(failure, DamagedError)), float(failure is not None)]
        damaged, failed = self._group.sum_(torch.tensor(flags, device=self._group.device)).tolist()
        if failure is not None:
            raise failure
        if damaged:
            raise DamagedElsewhereError(f"{directory}: {int(damaged)} other ranks found their part damaged")
        if failed:
            raise FailedElsewhereError(f"{directory}: {int(failed)} other ranks could not read their part")
        self.masters.refresh()

    def _finish_writing(self) -> None:
        """Wait for what is being written, however it ends: nothing may be written into a folder that is used anew."""
        if self._writing is not None:
            self._writing.wait()

    def _denominators(self, samples: int, tokens: int) -> Denominators:
        """Return what sums of a global batch are divided by."""
        run = self._run
        longest = most_drawn(run.episode, run.sampling.max_response_tokens, context_length(run.rollout, run.shape))
        return Denominators(samples, tokens, longest)

    def _apply(self, sums: StepSums, norm: float, global_tokens: int, steps: int | None = None) -> Metrics:
        """End an optimizer step: clip, update, count; returns its metrics.

        Args:
            sums: of this rank's micro-batches.
            norm: of the whole gradient, the same on every rank.
            global_tokens: drawn tokens of the global batch.
            steps: rollout steps of the run as of now; None: as configured.

        Raises NonFiniteError, on every rank and before anything changed, when the loss or a gradient is not finite and
        algorithm.checkForNan is set; otherwise such a step leaves the weights alone (metric skipped_steps 1).

        """
        loss, *token_values = self._group.sum_(sums.values).tolist()
        rate = learning_rate(self._run.optimizer, self._steps, total_steps(self._run.algorithm, steps))
        finite = self._check(loss, norm)
        if finite:
            self.masters.step(rate, norm)
        self._steps += 1
        return means(dict(zip(TOKEN_SUMS, token_values, strict=True)), global_tokens) | {
            "loss": loss,
            "grad_norm": norm,
            "learning_rate": rate,
            "logprob_diff_max": float(self._group.max_(sums.largest)),
            "skipped_steps": float(not finite),
        }

    def _check(self, loss: float, norm: float) -> bool:
        """Return whether loss and gradient are finite (the same on every rank); raises NonFiniteError as `_apply` says."""
        if math.isfinite(loss) and math.isfinite(norm):
            return True
        if self._run.algorithm.check_for_nan:
            what, value = ("loss", loss) if not math.isfinite(loss) else ("gradient norm", norm)
            raise NonFiniteError(f"optimizer step {self._steps}: {what} is {value}; the step was not applied")
        return False
