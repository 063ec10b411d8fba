"""One optimizer step on staged ranks: micro-batches through the pipeline, gradients added up, clipped, AdamW on FP32 masters."""

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lprl_api.derived.effective import context_length, most_drawn
from lprl_api.model.formats import Bf16
from lprl_api.spec.algorithm import Correction
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.data import Metrics
from lprl_workload.process.errors import NonFiniteError
from lprl_workload.process.movement import here
from lprl_workload.train.actor import MicroBatches
from lprl_workload.train.diagnostics import TOKEN_SUMS, largest_difference, means, token_sums
from lprl_workload.train.loss import Denominators
from lprl_workload.train.masters import Masters
from lprl_workload.train.megatron.batches import IDLE, micro_batches, tell
from lprl_workload.train.megatron.gradients import add_up, norm
from lprl_workload.train.megatron.model import StagedModel
from lprl_workload.train.megatron.ranks import Ranks
from lprl_workload.train.part_loss import part_loss
from lprl_workload.train.schedule import learning_rate, total_steps


@dataclass(slots=True)
class _Sums:
    """What the last stage adds up over its micro-batches."""

    values: Tensor = field(default_factory=lambda: torch.zeros(1 + len(TOKEN_SUMS), dtype=torch.float64))
    largest: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))


class Stepper:
    """Trains a rank's part of a model in BF16, on every rank together."""

    def __init__(self, run: RunConfig, model: StagedModel, ranks: Ranks) -> None:
        """Take a model that has been read from its folder: its masters begin with the forward weights."""
        self._run, self._model, self._ranks = run, model, ranks
        self._trained = {_key(*key): p for key, p in model.parameters.items() if isinstance(p, nn.Parameter)}
        self.masters = Masters(self._trained, frozenset(), Bf16(), run.optimizer, ranks.group)
        with torch.no_grad():
            for name, master in self.masters.items.items():
                master.value.copy_(self._trained[name])
        self.optimizer_steps = 0

    @property
    def gradients(self) -> dict[tuple[int, str], Tensor]:
        """Return the gradients of this rank's parameters, by chunk and name."""
        return {key: self.masters.items[_key(*key)].grad for key in self._model.parameters if _key(*key) in self.masters.items}

    def train(self, parts: MicroBatches, global_samples: int, global_tokens: int, correction: Correction) -> Metrics:
        """Do one optimizer step on this rank's micro-batches of a global batch; see TrainActor, and TorchTrainActor for what it raises."""
        self.masters.zero_grad()
        sums = self._pass(parts, Denominators(global_samples, global_tokens, self._longest()), correction)
        self.masters.collect()
        gradients = self.gradients
        add_up(self._model.parameters, gradients, self._run.shape.tied_embeddings)
        size = norm(self._model.mapping, self._ranks.rank, gradients)
        loss, *token_values = self._ranks.group.sum_(sums.values).tolist()
        rate = learning_rate(self._run.optimizer, self.optimizer_steps, total_steps(self._run.algorithm))
        finite = self._check(loss, size)
        if finite:
            self.masters.step(rate, size)
        self.optimizer_steps += 1
        return means(dict(zip(TOKEN_SUMS, token_values, strict=True)), global_tokens) | {
            "loss": loss,
            "grad_norm": size,
            "learning_rate": rate,
            "logprob_diff_max": float(self._ranks.group.max_(sums.largest)),
            "skipped_steps": float(not finite),
        }

    def _pass(self, parts: MicroBatches, denominators: Denominators, correction: Correction) -> _Sums:
        """Run forward and backward; returns what this rank answers for (zeros elsewhere)."""
        ranks, mesh, algorithm = self._ranks, self._ranks.mesh, self._run.algorithm
        for chunk in self._model.chunks:
            chunk.train()
        everywhere = tell(parts, partial(ranks.from_stage, stage=0), ranks.device) if mesh.pp > 2 else parts
        batches = micro_batches(everywhere, ranks.device, self._model.token_multiple, mesh.micro_batch_multiple)
        answers = mesh.answering_rank(ranks.place.data) == ranks.rank
        sums = _Sums()

        def loss(logp: Tensor, entropy: Tensor, number: int) -> tuple[Tensor, Any]:
            samples = parts[number] if number < len(parts) and parts[number] else [IDLE]
            terms, tokens = part_loss(samples, batches[number], (logp, entropy), algorithm, correction, denominators)
            here.tick()
            if answers:
                sums.values += torch.cat([terms.loss.detach().double().reshape(1), token_sums(tokens, terms)]).cpu()
                sums.largest = torch.maximum(sums.largest, largest_difference(tokens).cpu())
            return terms.loss, None

        self._model.run(batches, self._run.sampling.temperature, loss, algorithm.entropy_coefficient != 0)
        return sums

    def _longest(self) -> int:
        run = self._run
        return most_drawn(run.episode, run.sampling.max_response_tokens, context_length(run.rollout, run.shape))

    def _check(self, loss: float, size: float) -> bool:
        """Return whether loss and gradient are finite (the same on every rank); raises NonFiniteError as the run says."""
        if math.isfinite(loss) and math.isfinite(size):
            return True
        if self._run.algorithm.check_for_nan:
            what, value = ("loss", loss) if not math.isfinite(loss) else ("gradient norm", size)
            raise NonFiniteError(f"optimizer step {self.optimizer_steps}: {what} is {value}; the step was not applied")
        return False


def _key(chunk: int, name: str) -> str:
    return f"{chunk}|{name}"
