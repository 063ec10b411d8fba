"""Micro-batches of an optimizer step through the pipeline, forward and backward: gradients into the masters, added up over ranks."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from lprl_api.spec.algorithm import Correction
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.process.movement import here
from lprl_workload.train.actor import MicroBatches
from lprl_workload.train.batch import IDLE
from lprl_workload.train.loss import Denominators
from lprl_workload.train.megatron.batches import micro_batches, tell
from lprl_workload.train.megatron.gradients import add_up, norm
from lprl_workload.train.megatron.masters import StagedMasters
from lprl_workload.train.megatron.model import StagedModel
from lprl_workload.train.megatron.ranks import Ranks
from lprl_workload.train.part_loss import part_loss
from lprl_workload.train.rank_actor import StepSums


def backward(
    run: RunConfig,
    model: StagedModel,
    ranks: Ranks,
    parts: MicroBatches,
    denominators: Denominators,
    correction: Correction,
) -> StepSums:
    """Run forward and backward on all ranks together; returns what this rank answers for (zeros elsewhere).

    Args:
        run: the run.
        model: this rank's.
        ranks: all of them.
        parts: this rank's micro-batches.
        denominators: of the global batch.
        correction: in place of the algorithm's own.

    """
    mesh, algorithm = ranks.mesh, run.algorithm
    for chunk in model.chunks:
        chunk.train()
    everywhere = tell(parts, partial(ranks.from_stage, stage=0), ranks.device) if mesh.pp > 2 else parts
    batches = micro_batches(everywhere, ranks.device, model.token_multiple, mesh.micro_batch_multiple, ranks.context)
    answers = mesh.answering_rank(ranks.place.data) == ranks.rank
    sums = StepSums(ranks.device)

    def loss(logp: Tensor, entropy: Tensor, number: int) -> tuple[Tensor, Any]:
        samples = parts[number] if number < len(parts) and parts[number] else [IDLE]
        terms, tokens = part_loss(samples, batches[number].asked, (logp, entropy), algorithm, correction, denominators)
        here.tick()
        if answers:
            sums.add(terms, tokens)
        return terms.loss, None

    model.run(batches, run.sampling.temperature, loss, algorithm.entropy_coefficient != 0)
    return sums


@torch.no_grad()
def reduce_and_norm(model: StagedModel, ranks: Ranks, masters: StagedMasters) -> float:
    """Take the gradients of a step into the masters, add them up over ranks and return the whole gradient's L2 norm, on every rank."""
    masters.collect()
    gradients = masters.gradients
    add_up(model.parameters, gradients, masters.replicas, model.mapping.shape.tied_embeddings)
    return norm(model.mapping, ranks.rank, gradients)
