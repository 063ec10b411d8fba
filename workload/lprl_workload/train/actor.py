"""TrainActor: one trainer rank."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from lprl_api.derived.residency import TrainPart
from lprl_workload.data import Metrics
from lprl_workload.episode import Float32, TrainSample
from lprl_workload.io.parts import FileRecord
from lprl_workload.sync.manifest import WeightSource
from lprl_workload.sync.peers import Peers

MicroBatches = Sequence[Sequence[TrainSample]]
"""A rank's samples, by micro-batch."""


class TrainActor(Protocol):
    """One rank of the trainer. All ranks of a run call every method together, in the same order (collectives inside).

    Determinism: on CPU, equal state and equal inputs give bit-equal results.
    """

    @property
    def optimizer_steps(self) -> int:
        """Optimizer steps done since the start of the run."""

    def logprobs(self, parts: MicroBatches, temperature: float) -> list[list[Float32]]:
        """Return the current policy's log-probabilities of this rank's drawn tokens, float32 [R] per sample of each micro-batch."""

    def reference_logprobs(self, parts: MicroBatches, temperature: float) -> list[list[Float32]]:
        """Return the reference policy's log-probabilities; the reference is loaded on first use."""

    def train(self, parts: MicroBatches, global_samples: int, global_tokens: int, steps: int | None = None) -> Metrics:
        """Do one optimizer step on this rank's micro-batches of a global batch.

        Args:
            parts: this rank's micro-batches, run in order; equally many on every rank (train/step_plan.py), some may be empty.
            global_samples: samples of the global batch over all ranks, a loss denominator.
            global_tokens: drawn tokens of the global batch over all ranks, the other one.
            steps: rollout steps of the run as of now, which its learning rate follows; None: as the ranks were told at first.

        Returns:
            Metrics averaged over ranks: loss, pg_loss, entropy, kl, clip_fraction, grad_norm, learning_rate,
            logprob_diff (mean |trainer - rollout|), k3, tis_clip_fraction, ...

        """

    def set_correction(self, enabled: bool) -> None:
        """Switch truncated importance sampling on (stability guard) or back to the configured correction."""

    def source(self) -> WeightSource:
        """Return the weights this rank owns: BF16 (router correction biases float32) under Hugging Face names.

        Values are exactly what an exported BF16 checkpoint stores. The manifest is the same on every rank, sorted by name.
        """

    def peers(self) -> Peers:
        """Return the ranks a push goes over together."""

    def sleep(self, parts: frozenset[TrainPart]) -> None:
        """Move parts of the state to host memory and free the device's: nothing for parts that sleep already. What needs a part that
        sleeps (training, log-probabilities, loading, handing out weights) raises RuntimeError; saving does not need any.
        """

    def wake(self, parts: frozenset[TrainPart]) -> None:
        """Bring parts back, bit by bit as they were (gradients as zeros)."""

    def begin_save(self, directory: Path) -> None:
        """Copy this rank's part of the trainer's state (masters, optimizer, schedule, RNG) into host memory and begin to write it into
        the existing `directory`, hashed on the way. Returns when the copy is taken: training may go on at once.
        """

    def finish_save(self, wait: bool) -> tuple[FileRecord, ...] | None:
        """Return the files that `begin_save` began once they are durable, or raise why they are not; None while they are written,
        unless it is to `wait`. May be called from any thread.
        """

    def load(self, directory: Path, records: Sequence[FileRecord] = ()) -> None:
        """Restore what was saved, by any number of ranks; afterwards training goes on bit-identically on CPU.

        What is read is compared with `records`, those of the files in `directory`. Raises DamagedError, on all ranks, when it differs.
        """

    def close(self) -> None:
        """Leave the process group and free memory."""
