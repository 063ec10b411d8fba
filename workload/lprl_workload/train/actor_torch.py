"""The torch trainer: a Hugging Face model with FP32 masters, data-parallel over processes (FSDP2 where it shards).

One optimizer step, top to bottom: `train` -> micro-batches -> forward, loss, backward -> reduce, clip, Adam -> refresh.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.distributed.fsdp import FSDPModule

from lprl_api.derived.effective import context_length, most_drawn
from lprl_api.derived.residency import TrainPart
from lprl_api.spec.algorithm import Correction
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.config import RankInfo, ResolvedPaths
from lprl_workload.data import Metrics
from lprl_workload.episode import NOTHING, Float32, TrainSample
from lprl_workload.io.parts import FileRecord
from lprl_workload.process.background import Background
from lprl_workload.process.errors import DamagedError, NonFiniteError
from lprl_workload.process.movement import here
from lprl_workload.sync.manifest import WeightSource
from lprl_workload.sync.peers import Peers
from lprl_workload.train.actor import MicroBatches
from lprl_workload.train.batch import collate
from lprl_workload.train.build import build_reference, build_trained, set_dropout
from lprl_workload.train.diagnostics import TOKEN_SUMS, largest_difference, means, token_sums
from lprl_workload.train.group import Group
from lprl_workload.train.loss import Denominators, LossTerms, TokenBatch
from lprl_workload.train.masters import local
from lprl_workload.train.parking import Parking
from lprl_workload.train.part_loss import part_loss
from lprl_workload.train.policy import Policy
from lprl_workload.train.schedule import learning_rate, total_steps
from lprl_workload.train.source import TorchSource
from lprl_workload.train.state import load_state, take_snapshot, write_snapshot

TIS = Correction(type="tis")
"""What the stability guard switches on when the job configures no correction: weights truncated to [0, 2]."""

IDLE = TrainSample(np.zeros(1, np.int32), np.zeros(1, np.bool_), NOTHING, NOTHING)
"""What a sharded rank without samples feeds through the model, so that collectives match: no drawn token, gradient zero."""


class TorchTrainActor:
    """One trainer rank (TrainActor)."""

    def __init__(self, run: RunConfig, paths: ResolvedPaths, rank: RankInfo, shard: bool | None = None) -> None:
        """Join the trainer group and load the model.

        Args:
            run: the run.
            paths: its folders on this machine.
            rank: this process of the trainer.
            shard: FSDP2 (True) or replicated data parallel (False); default: shard on several GPUs.

        """
        self._run, self._paths = run, paths
        self._group = Group(rank, run.stall_seconds)
        self._shard = (rank.world > 1 and self._group.device.type == "cuda") if shard is None else shard and rank.world > 1
        recompute = run.trainer.recompute != "none"
        self._trained = build_trained(paths.model, run.training_format, run.shape, run.optimizer, self._group, recompute, self._shard)
        set_dropout(self._trained.policy, run.trainer.attention_dropout)
        self._correction = run.algorithm.correction
        self._reference: Policy | None = None
        self._parked_reference: Parking | None = None
        self._source = TorchSource(self._trained, self._group)
        self._peers: Peers | None = None
        self._steps = 0
        self._writing: Background[tuple[FileRecord, ...]] | None = None

    @property
    def optimizer_steps(self) -> int:
        """Optimizer steps done since the start of the run."""
        return self._steps

    def logprobs(self, parts: MicroBatches, temperature: float) -> list[list[Float32]]:
        """Return the current policy's log-probabilities of this rank's drawn tokens, float32 [R] per sample of each micro-batch."""
        self._trained.masters.require("weights")
        return self._logprobs(self._trained.policy, parts, temperature)

    def reference_logprobs(self, parts: MicroBatches, temperature: float) -> list[list[Float32]]:
        """Return the reference policy's log-probabilities (BF16 weights); the reference is loaded on first use."""
        if self._parked_reference is not None and self._parked_reference.asleep:
            raise RuntimeError("the trainer's reference sleeps: call wake first")
        if self._reference is None:
            self._reference = build_reference(self._paths.reference, self._run.shape, self._group, self._shard)
        return self._logprobs(self._reference, parts, temperature)

    def train(self, parts: MicroBatches, global_samples: int, global_tokens: int) -> Metrics:
        """Do one optimizer step on this rank's micro-batches of a global batch; see TrainActor.

        Raises NonFiniteError, on every rank and before anything changed, when the loss or a gradient is not finite and
        algorithm.checkForNan is set; otherwise such a step leaves the weights alone (metric skipped_steps 1).
        """
        masters = self._trained.masters
        masters.require("weights", "optimizer")
        self._trained.policy.train()
        masters.zero_grad()
        run = self._run
        longest = most_drawn(run.episode, run.sampling.max_response_tokens, context_length(run.rollout, run.shape))
        denominators = Denominators(global_samples, global_tokens, longest)
        sums = torch.zeros(1 + len(TOKEN_SUMS), dtype=torch.float64, device=self._group.device)
        largest = torch.zeros((), dtype=torch.float64, device=self._group.device)
        for part in self._run_parts(parts):
            terms, tokens = self._loss(part or [IDLE], denominators)
            terms.loss.backward()  # type: ignore[no-untyped-call]
            here.tick()
            masters.collect()
            sums += torch.cat([terms.loss.detach().double().reshape(1), token_sums(tokens, terms)])
            largest = torch.maximum(largest, largest_difference(tokens))
        loss, *token_values = self._group.sum_(sums).tolist()
        norm = masters.reduce_and_norm(self._shard)
        rate = learning_rate(self._run.optimizer, self._steps, total_steps(self._run.algorithm))
        finite = self._check(loss, norm)
        if finite:
            masters.step(rate, norm)
        self._steps += 1
        metrics = means(dict(zip(TOKEN_SUMS, token_values, strict=True)), global_tokens)
        worst = float(self._group.max_(largest))
        return metrics | {
            "loss": loss,
            "grad_norm": norm,
            "learning_rate": rate,
            "logprob_diff_max": worst,
            "skipped_steps": float(not finite),
        }

    def set_correction(self, enabled: bool) -> None:
        """Switch truncated importance sampling on (a configured correction stays as it is) or back to the configured one."""
        configured = self._run.algorithm.correction
        self._correction = TIS if enabled and configured.type == "none" else configured

    def source(self) -> WeightSource:
        """Return this rank's weights, as they are now and become later."""
        return self._source

    def peers(self) -> Peers:
        """Return the ranks of a push; the first call on every rank makes their group."""
        if self._peers is None:
            self._peers = self._group.peers()
        return self._peers

    def sleep(self, parts: frozenset[TrainPart]) -> None:
        """Free the device memory of parts; see TrainActor."""
        for module in self._trained.policy.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # what a pass left gathered
        for part in sorted(parts - {"reference"}):
            self._trained.masters.sleep(part)
        if "reference" in parts and self._reference is not None:
            if self._parked_reference is None:
                self._parked_reference = Parking(local(parameter) for parameter in self._reference.parameters())
            self._parked_reference.sleep()
        if self._group.device.type == "cuda":
            torch.cuda.empty_cache()  # others wait for it

    def wake(self, parts: frozenset[TrainPart]) -> None:
        """Take it back; see TrainActor."""
        for part in sorted(parts - {"reference"}):
            self._trained.masters.wake(part)
        if "reference" in parts and self._parked_reference is not None:
            self._parked_reference.wake()

    def begin_save(self, directory: Path) -> None:
        """Copy this rank's part of the state and begin to write it; see TrainActor."""
        self._finish_writing()
        snapshot = take_snapshot(self._trained.masters, self._group.rank, self._group.world, self._steps)
        self._writing = Background(lambda: write_snapshot(directory, snapshot), "lprl-save")

    def finish_save(self, wait: bool) -> tuple[FileRecord, ...] | None:
        """Return the files that were begun once they are durable; see TrainActor."""
        if self._writing is None:
            raise RuntimeError("finish_save before begin_save")
        return self._writing.result() if wait or self._writing.done else None

    def load(self, directory: Path, records: Sequence[FileRecord] = ()) -> None:
        """Restore what was saved, by this or another number of ranks; on CPU training then goes on bit-identically."""
        self._trained.masters.require("weights", "optimizer")
        failure: Exception | None = None
        try:
            self._steps = load_state(directory, self._trained.masters, self._group.rank, self._group.world, records)
        except Exception as error:
            failure = error
        # Refreshing is a collective where ranks share parameters: they begin it together, or not at all.
        failed = self._group.sum_(torch.tensor(float(failure is not None), device=self._group.device))
        if failure is not None:
            raise failure
        if failed:
            raise DamagedError(f"{directory}: {int(failed)} other ranks could not read their part")
        self._trained.masters.refresh()

    def _finish_writing(self) -> None:
        """Wait for what is being written, however it ends: nothing may be written into a folder that is used anew."""
        if self._writing is not None:
            self._writing.wait()

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

    def _check(self, loss: float, norm: float) -> bool:
        """Return whether loss and gradient are finite (the same on every rank); raises NonFiniteError as `train` says."""
        if math.isfinite(loss) and math.isfinite(norm):
            return True
        if self._run.algorithm.check_for_nan:
            what = "loss" if not math.isfinite(loss) else "gradient norm"
            value = loss if what == "loss" else norm
            raise NonFiniteError(f"optimizer step {self._steps}: {what} is {value}; the step was not applied")
        return False
