"""Adding up gradients: what each rank's backward pass leaves out of its parameters' gradients, and their norm.

Losses are shares of the global loss, so gradients add up. Which ranks have a share each:

    dense parameters      the ranks of other data (and context) indices: on the one that keeps the master (replicas.py)
    experts               the ranks that hold the same expert: likewise
    before both, over the tensor group: norms of queries and keys (each rank has its own heads), and under sequence parallelism every
    other norm and the router (each rank has its own tokens); without it they get the same gradient on every tensor rank
    a tied embedding      first and last stage
"""

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch import Tensor

from lprl_workload.train.megatron.mapping import Mapping as CheckpointMapping
from lprl_workload.train.megatron.replicas import Replicas
from lprl_workload.train.megatron.weights import Parameters, read

EMBEDDING, HEAD = "embedding.word_embeddings.weight", "output_layer.weight"


@torch.no_grad()
def add_up(parameters: Parameters, gradients: Mapping[tuple[int, str], Tensor], replicas: Replicas, tied: bool) -> None:
    """Add gradients over the ranks that have a share each, in place, on all ranks together; whole ones are where their masters are.

    Args:
        parameters: of this rank's chunks, with the marks Megatron's modules set on them.
        gradients: of each of them.
        replicas: who keeps the masters.
        tied: the head is the embedding.

    """
    shared = [g for key, g in gradients.items() if _share_of_tensor_rank(parameters[key])]
    _sum(shared, parallel_state.get_tensor_model_parallel_group())
    replicas.add_up(gradients)
    ends = [g for key, g in gradients.items() if key[1] in (EMBEDDING, HEAD) and replicas.keeps(key)]
    if tied and ends and parallel_state.get_pipeline_model_parallel_world_size() > 1:
        _sum(ends, parallel_state.get_embedding_group())


def _share_of_tensor_rank(parameter: Tensor) -> bool:
    """Return whether every tensor rank has the whole parameter and a share of its gradient."""
    return any(getattr(parameter, mark, False) for mark in ("sequence_parallel", "of_own_heads"))


def _sum(gradients: Sequence[Tensor], group: dist.ProcessGroup) -> None:
    if dist.get_world_size(group) == 1 or not gradients:
        return
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat, group=group)
    for gradient, summed in zip(gradients, torch.split(flat, [gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(summed.view_as(gradient))


@torch.no_grad()
def norm(mapping: CheckpointMapping, rank: int, gradients: Mapping[tuple[int, str], Tensor]) -> float:
    """Return the L2 norm of the whole model's gradient, the same on every rank: each element counts where it is owned."""
    device = next((gradient.device for gradient in gradients.values()), torch.device("cpu"))
    squares = torch.zeros((), dtype=torch.float64, device=device)
    for held, part in mapping.owned(rank).values():
        if (gradient := gradients.get((held.chunk, held.name))) is not None:
            squares += torch.linalg.vector_norm(read(gradient, part), dtype=torch.float64).square()
    dist.all_reduce(squares)
    return float(squares.sqrt())
