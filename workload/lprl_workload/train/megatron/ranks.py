"""Megatron's process groups of a trainer's ranks, as the mesh has them."""

import math
from datetime import timedelta

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

from lprl_workload.config import RankInfo
from lprl_workload.train.group import TIMEOUT, Group
from lprl_workload.train.mesh import TrainMesh


class Ranks:
    """A process among the trainer's ranks. Megatron keeps its groups for the whole process: trainers of one rank share them, others
    must have left before the next one comes.
    """

    _open = 0
    """Trainers of this process that have not left."""

    def __init__(self, rank: RankInfo, mesh: TrainMesh, stall_seconds: float = 1800) -> None:
        """Join the group of all ranks and make Megatron's; raises ValueError where the mesh has another number of ranks."""
        if rank.world != mesh.world:
            raise ValueError(f"{rank.world} ranks; {mesh} has {mesh.world}")
        self.group, self.mesh, self.rank, self.place = Group(rank, stall_seconds), mesh, rank.rank, mesh.coordinates(rank.rank)
        self.device = self.group.device
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)  # Megatron and TransformerEngine build there
        if Ranks._open == 0:
            self._make_groups(max(TIMEOUT, timedelta(seconds=stall_seconds)))
        elif rank.world > 1:
            raise RuntimeError("a trainer of this process has not left Megatron's groups: close it first")
        Ranks._open += 1
        self._left = False

    def _make_groups(self, longest: timedelta) -> None:
        mesh = self.mesh
        if mesh.world == 1:
            # Megatron asks for a group even where there is nobody else.
            backend = "gloo" if self.device.type == "cpu" else "cpu:gloo,cuda:nccl"
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
        parallel_state.initialize_model_parallel(
            tensor_model_parallel_size=mesh.tp,
            pipeline_model_parallel_size=mesh.pp,
            virtual_pipeline_model_parallel_size=mesh.vpp if mesh.vpp > 1 else None,
            context_parallel_size=mesh.cp,
            expert_model_parallel_size=mesh.ep,
            expert_tensor_parallel_size=mesh.etp,
            distributed_timeout_minutes=math.ceil(longest.total_seconds() / 60),
            create_gloo_process_groups=False,
        )
        # On a CPU there are no random streams of CUDA to keep for each kind of rank.
        model_parallel_cuda_manual_seed(0, inference_rng_tracker=self.device.type == "cpu", force_reset_rng=True)

    @property
    def context(self) -> tuple[int, int]:
        """Return how many ranks a sequence is cut over, and which of them this one is."""
        return self.mesh.cp, self.place.context

    @property
    def tensor_group(self) -> dist.ProcessGroup:
        """Ranks that share layers' matrices with this one."""
        found: dist.ProcessGroup = parallel_state.get_tensor_model_parallel_group()
        return found

    def from_stage(self, values: torch.Tensor, stage: int) -> torch.Tensor:
        """Return what the rank of `stage` in this one's pipeline has in `values`; the others' are overwritten."""
        if self.mesh.pp > 1:
            source = self.mesh.rank_at(self.place.data, self.place.context, self.place.tensor, stage)
            dist.broadcast(values, source, group=parallel_state.get_pipeline_model_parallel_group())
        return values

    def close(self) -> None:
        """Leave all groups; again, or while others are in them, nothing."""
        if self._left:
            return
        self._left = True
        Ranks._open -= 1
        if Ranks._open == 0:
            parallel_state.destroy_model_parallel()
            self.group.close()
            if dist.is_initialized():
                dist.destroy_process_group()
