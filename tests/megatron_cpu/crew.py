"""Trainer ranks as processes of this machine: each runs one function on its own part of a job, and answers once."""

import io
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from tests.contract.trainer_bench import paths_of, run_config

from lprl_api.model.formats import Bf16, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.spec.topology import TrainerLayout
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.config import RankInfo
from lprl_workload.episode import TrainSample
from lprl_workload.train.group import open_store
from lprl_workload.train.megatron.actor import MegatronTrainActor
from lprl_workload.train.megatron.model import StagedModel
from lprl_workload.train.megatron.ranks import Ranks
from lprl_workload.train.megatron.stages import Stages
from lprl_workload.train.mesh import TrainMesh

WAIT_S = 400


@dataclass(frozen=True)
class Job:
    """A model on a mesh, and the samples of each data index by micro-batch."""

    folder: Path
    shape: ModelShape
    mesh: TrainMesh
    stages: Stages
    parts: Sequence[Sequence[Sequence[TrainSample]]]
    sequence_parallel: bool = False
    given: Any = None
    """What else the work is told."""
    fmt: WeightFormat = field(default_factory=Bf16)
    """The trainer computes with."""
    device: str = "cpu"
    """Kind of the ranks' devices; on GPUs each rank has its own."""
    lag_s: float = WAIT_S
    """How much later than the first rank another one may answer."""

    def mine(self, rank: int) -> Sequence[Sequence[TrainSample]]:
        """Return the micro-batches of a rank: empty ones where it takes no data."""
        parts = self.parts[self.mesh.coordinates(rank).data]
        return parts if self.mesh.takes_data(rank) else [[] for _ in parts]

    def run(self, **changes: Any) -> RunConfig:
        """Return the RunConfig of its ranks, changed."""
        mesh = self.mesh
        layout = {
            "tensor": mesh.tp, "context": mesh.cp, "pipeline": mesh.pp, "virtual_pipeline": mesh.vpp,
            "expert": mesh.ep, "expert_tensor": mesh.etp,
            "sequence_parallel": self.sequence_parallel, "recompute": "none", "max_tokens_per_gpu": 64,
            "last_stage_layers": self.stages.layers[-1] if len(set(self.stages.layers)) > 1 else None,
        }  # fmt: skip
        found = run_config(self.folder, self.fmt, shape=self.shape, trainer=layout, **changes)
        ranks = found.ranks.model_copy(update={"trainer_ranks": mesh.world, "data_parallel": mesh.dp})
        return found.model_copy(update={"ranks": ranks})

    def actor(self, rank: RankInfo, **changes: Any) -> MegatronTrainActor:
        """Return one rank's trainer."""
        return MegatronTrainActor(self.run(**changes), paths_of(self.folder), rank)

    def staged(self, rank: RankInfo) -> tuple[Ranks, StagedModel]:
        """Return one rank's model alone."""
        ranks = Ranks(rank, self.mesh)
        return ranks, StagedModel(self.folder, self.shape, self.stages, TrainerLayout(sequence_parallel=self.sequence_parallel), ranks)


Work = Callable[[Job, RankInfo], Any]


def run(job: Job, work: Work) -> list[Any]:
    """Return what `work` answers on every rank; raises what the first failing rank raised."""
    # TransformerEngine begins with CUDA when it is imported, and what has begun with it must not be forked.
    context: Any = multiprocessing.get_context("forkserver" if job.device == "cpu" else "spawn")
    store = open_store("127.0.0.1", 0, serve=True)
    if job.device == "cpu":
        context.set_forkserver_preload([__name__, "tests.megatron_cpu.models", "tests.contract.test_sharded_push"])
    started = [_start(context, job, work, rank, store.port) for rank in range(job.mesh.world)]
    try:
        wait([end for _, end in started], WAIT_S)
        answers = [_answer(end) if end.poll(job.lag_s) else TimeoutError(f"rank {n}") for n, (_, end) in enumerate(started)]
    finally:
        for process, _ in started:
            process.join(5)
            process.kill()
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _answer(end: Connection) -> Any:
    return torch.load(io.BytesIO(end.recv_bytes()), weights_only=False, map_location="cpu")


def _send(end: Connection, answer: Any) -> None:
    """Send by value: tensors in a pipe are handles, which a rank takes with it when it ends."""
    written = io.BytesIO()
    torch.save(answer, written)
    end.send_bytes(written.getvalue())


def _start(context: Any, job: Job, work: Work, rank: int, port: int) -> tuple[Any, Connection]:
    ours, theirs = context.Pipe()
    process = context.Process(target=_rank, args=(job, work, rank, port, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _rank(job: Job, work: Work, rank: int, port: int, end: Connection) -> None:
    torch.set_num_threads(1)
    device = "cpu" if job.device == "cpu" else f"{job.device}:{rank}"
    try:
        _send(end, work(job, RankInfo(rank, job.mesh.world, device, store=open_store("127.0.0.1", port, serve=False))))
    except Exception as error:
        try:
            _send(end, error)
        except Exception:  # one that cannot be sent
            _send(end, RuntimeError(f"rank {rank}: {error!r}"))
