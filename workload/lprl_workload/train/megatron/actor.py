"""The Megatron trainer: a model cut over tensor, pipeline and expert ranks by our own table of parts, with FP32 masters.

One optimizer step, top to bottom: `train` -> micro-batches through the pipeline -> gradients added up, norm -> clip, Adam -> refresh.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from lprl_api.model.formats import WeightFormat
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.config import RankInfo, ResolvedPaths
from lprl_workload.data import Metrics
from lprl_workload.episode import Float32
from lprl_workload.io.parts import FileRecord
from lprl_workload.sync.manifest import WeightSource
from lprl_workload.train.actor import MicroBatches
from lprl_workload.train.megatron.layout import mesh_here, stages_of
from lprl_workload.train.megatron.logprobs import logprobs
from lprl_workload.train.megatron.masters import StagedMasters
from lprl_workload.train.megatron.model import StagedModel
from lprl_workload.train.megatron.ranks import Ranks
from lprl_workload.train.megatron.state import load_pieces, take_pieces
from lprl_workload.train.megatron.step import backward, reduce_and_norm
from lprl_workload.train.megatron.weights import PartsSource
from lprl_workload.train.rank_actor import RankActor
from lprl_workload.train.state import Snapshot


class MegatronTrainActor(RankActor):
    """One trainer rank (TrainActor)."""

    def __init__(self, run: RunConfig, paths: ResolvedPaths, rank: RankInfo) -> None:
        """Join the ranks and load this rank's part of the model; raises UserError for what this trainer does not do.

        Args:
            run: the run.
            paths: its folders on this machine.
            rank: this process of the trainer.

        """
        self._ranks = Ranks(rank, mesh_here(run, rank.world), run.stall_seconds)
        super().__init__(run, paths, self._ranks.group)
        self._model = self._staged(paths.model, filled=False, fmt=run.training_format)
        self._masters = StagedMasters(self._model, self._ranks, run.training_format, run.optimizer, paths.model)
        self._model.fill(paths.model, self._masters.values)
        self._masters.refresh()
        self._reference: StagedModel | None = None
        self._source = PartsSource(
            self._model.mapping, rank.rank, self._masters.values, self._group.device, lambda: self._masters.require("weights")
        )

    def _staged(self, folder: Path, filled: bool, fmt: WeightFormat | None = None) -> StagedModel:
        return StagedModel(folder, self._run.shape, stages_of(self._run), self._run.trainer, self._ranks, filled, fmt)

    @property
    def masters(self) -> StagedMasters:
        """The optimizer and what it trains."""
        return self._masters

    @property
    def model(self) -> StagedModel:
        """The rank's part of the policy."""
        return self._model

    def logprobs(self, parts: MicroBatches, temperature: float) -> list[list[Float32]]:
        """Return the current policy's log-probabilities of this rank's drawn tokens, float32 [R] per sample of each micro-batch."""
        self._masters.require("weights")
        return logprobs(self._model, self._ranks, parts, temperature)

    def reference_logprobs(self, parts: MicroBatches, temperature: float) -> list[list[Float32]]:
        """Return the reference policy's log-probabilities (BF16 weights); the reference is loaded on first use."""
        self._require_reference()
        if self._reference is None:
            self._reference = self._staged(self._paths.reference, filled=True)
            self._reference.freeze()
        return logprobs(self._reference, self._ranks, parts, temperature)

    def train(self, parts: MicroBatches, global_samples: int, global_tokens: int, steps: int | None = None) -> Metrics:
        """Do one optimizer step on this rank's micro-batches of a global batch; see TrainActor, RankActor._apply says what it raises."""
        self._masters.require("weights", "optimizer")
        self._masters.zero_grad()
        denominators = self._denominators(global_samples, global_tokens)
        sums = backward(self._run, self._model, self._ranks, parts, denominators, self._correction)
        return self._apply(sums, reduce_and_norm(self._model, self._ranks, self._masters), global_tokens, steps)

    def source(self) -> WeightSource:
        """Return this rank's weights, as they are now and become later."""
        return self._source

    def _of_reference(self) -> list[Tensor]:
        return [] if self._reference is None else [p.detach() for p in self._reference.parameters.values() if isinstance(p, nn.Parameter)]

    def _snapshot(self) -> Snapshot:
        return take_pieces(self._masters, self._model.mapping, self._group.rank, self._steps)

    def _read_state(self, directory: Path, records: Sequence[FileRecord]) -> int:
        return load_pieces(directory, self._masters, self._model.mapping, self._group.rank, records)

    def close(self) -> None:
        """Leave all process groups and free memory."""
        self._finish_writing()
        self._ranks.close()
        self._reference = None
