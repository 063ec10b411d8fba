"""Log-probabilities of drawn tokens under a staged model, on every rank of the pipeline alike."""

from functools import partial

import torch

from lprl_workload.episode import Float32
from lprl_workload.process.movement import here
from lprl_workload.train.actor import MicroBatches
from lprl_workload.train.megatron.batches import micro_batches, tell
from lprl_workload.train.megatron.model import StagedModel
from lprl_workload.train.megatron.ranks import Ranks


def logprobs(model: StagedModel, ranks: Ranks, parts: MicroBatches, temperature: float) -> list[list[Float32]]:
    """Return the log-probabilities of this rank's drawn tokens, float32 [R] per sample of each micro-batch (see TrainActor)."""
    mesh = ranks.mesh
    for chunk in model.chunks:
        chunk.eval()
    everywhere = tell(parts, partial(ranks.from_stage, stage=0), ranks.device) if mesh.pp > 2 else parts
    staged = micro_batches(everywhere, ranks.device, model.token_multiple, mesh.micro_batch_multiple, ranks.context)
    found = model.run(staged, temperature)
    here.tick()
    batches = [one.asked for one in staged]
    drawn = [len(batch.targets) for batch in batches]
    flat = torch.cat([logp for logp, _ in found]) if found else torch.zeros(sum(drawn), device=ranks.device)
    flat = ranks.from_stage(flat, mesh.pp - 1)
    results: list[list[Float32]] = []
    for part, batch, logp in zip(parts, batches, torch.split(flat, drawn), strict=False):
        rows = batch.spread(logp).cpu().numpy()
        results.append([rows[n, : batch.lengths[n]].copy() for n in range(len(part))])
    return results
