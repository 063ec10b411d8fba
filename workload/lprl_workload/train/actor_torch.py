"""The torch trainer: a Hugging Face model with FP32 masters, data-parallel over processes (FSDP2 where it shards).

One optimizer step, top to bottom: `train` -> micro-batches -> forward, loss, backward -> reduce, clip, Adam -> refresh.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from lprl_api.derived.residency import TrainPart
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.config import RankInfo, ResolvedPaths
from lprl_workload.data import Metrics
from lprl_workload.episode import Float32, TrainSample
from lprl_workload.io.parts import FileRecord
from lprl_workload.process.movement import here
from lprl_workload.sync.manifest import WeightSource
from lprl_workload.train.actor import MicroBatches
from lprl_workload.train.batch import IDLE, collate
from lprl_workload.train.build import build_reference, build_trained, set_dropout
from lprl_workload.train.group import Group
from lprl_workload.train.loss import Denominators, LossTerms, TokenBatch
from lprl_workload.train.masters import Masters, local
from lprl_workload.train.part_loss import part_loss
from lprl_workload.train.policy import Policy
from lprl_workload.train.rank_actor import RankActor, StepSums
from lprl_workload.train.source import TorchSource
from lprl_workload.train.state import Snapshot, load_state, take_snapshot


class TorchTrainActor(RankActor):
    """One trainer rank (TrainActor)."""

    def __init__(self, run: RunConfig, paths: ResolvedPaths, rank: RankInfo, shard: bool | None = None) -> None:
        """Join the trainer group and load the model.

        Args:
            run: the run.
            paths: its folders on this machine.
            rank: this process of the trainer.
            shard: FSDP2 (True) or replicated data parallel (False); default: shard on several GPUs.

        """
        super().__init__(run, paths, Group(rank, run.stall_seconds))
        self._shard = (rank.world > 1 and self._group.device.type == "cuda") if shard is None else shard and rank.world > 1
        recompute = run.trainer.recompute != "none"
        self._trained = build_trained(paths.model, run.training_format, run.shape, run.optimizer, self._group, recompute, self._shard)
        set_dropout(self._trained.policy, run.trainer.attention_dropout)
        self._reference: Policy | None = None
        self._source = TorchSource(self._trained, self._group)

    @property
    def masters(self) -> Masters:
        """The optimizer and what it trains."""
        return self._trained.masters

    def logprobs(self, parts: MicroBatches, temperature: float) -> list[list[Float32]]:
        """Return the current policy's log-probabilities of this rank's drawn tokens, float32 [R] per sample of each micro-batch."""
        self._trained.masters.require("weights")
        return self._logprobs(self._trained.policy, parts, temperature)

    def reference_logprobs(self, parts: MicroBatches, temperature: float) -> list[list[Float32]]:
        """Return the reference policy's log-probabilities (BF16 weights); the reference is loaded on first use."""
        self._require_reference()
        if self._reference is None:
            self._reference = build_reference(self._paths.reference, self._run.shape, self._group, self._shard)
        return self._logprobs(self._reference, parts, temperature)

    def train(self, parts: MicroBatches, global_samples: int, global_tokens: int, steps: int | None = None) -> Metrics:
        """Do one optimizer step on this rank's micro-batches of a global batch; see TrainActor; RankActor._apply says what it raises."""
        masters = self._trained.masters
        masters.require("weights", "optimizer")
        self._trained.policy.train()
        masters.zero_grad()
        denominators, sums = self._denominators(global_samples, global_tokens), StepSums(self._group.device)
        for part in self._run_parts(parts):
            terms, tokens = self._loss(part or [IDLE], denominators)
            terms.loss.backward()  # type: ignore[no-untyped-call]
            here.tick()
            masters.collect()
            sums.add(terms, tokens)
        return self._apply(sums, masters.reduce_and_norm(self._shard), global_tokens, steps)

    def source(self) -> WeightSource:
        """Return this rank's weights, as they are now and become later."""
        return self._source

    def sleep(self, parts: frozenset[TrainPart]) -> None:
        """Free the device memory of parts; see TrainActor."""
        for module in self._trained.policy.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # what a pass left gathered
        super().sleep(parts)

    def _of_reference(self) -> list[Tensor]:
        return [] if self._reference is None else [local(parameter) for parameter in self._reference.parameters()]

    def _snapshot(self) -> Snapshot:
        return take_snapshot(self._trained.masters, self._group.rank, self._group.world, self._steps)

    def _read_state(self, directory: Path, records: Sequence[FileRecord]) -> int:
        return load_state(directory, self._trained.masters, self._group.rank, self._group.world, records)

    def close(self) -> None:
        """Leave the process group and free memory."""
        self._finish_writing()
        self._group.close()
        self._reference = None

    def _run_parts(self, parts: MicroBatches) -> MicroBatches:
        """Return the micro-batches that take a forward pass: sharded, also empty ones (collectives inside)."""
        return [part for part in parts if part or self._shard]

    def _loss(self, samples: Sequence[TrainSample], denominators: Denominators) -> tuple[LossTerms, TokenBatch]:
        algorithm = self._run.algorithm
        batch = collate(samples, self._group.device)
        found = self._trained.policy(batch, self._run.sampling.temperature, algorithm.entropy_coefficient != 0)
        return part_loss(samples, batch, found, algorithm, self._correction, denominators)

    @torch.no_grad()
    def _logprobs(self, policy: Policy, parts: MicroBatches, temperature: float) -> list[list[Float32]]:
        policy.eval()
        results: list[list[Float32]] = []
        for part in parts:
            results.append([])
            if part or self._shard:
                batch = collate(part or [IDLE], self._group.device)
                logp, _ = policy(batch, temperature, False)
                here.tick()
                rows = batch.spread(logp).cpu().numpy()
                results[-1] = [rows[n, : batch.lengths[n]].copy() for n in range(len(part))]
        return results
