"""Trainer ranks as processes of this machine: each runs one function on its own part of a job, and answers once."""

import io
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from lprl_api.model.model_shape import ModelShape
from lprl_api.spec.topology import TrainerLayout
from lprl_workload.config import RankInfo
from lprl_workload.episode import TrainSample
from lprl_workload.train.group import open_store
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


Work = Callable[[Job, Ranks, StagedModel], Any]


def run(job: Job, work: Work) -> list[Any]:
    """Return what `work` answers on every rank; raises what the first failing rank raised."""
    context, store = multiprocessing.get_context("forkserver"), open_store("127.0.0.1", 0, serve=True)
    context.set_forkserver_preload([__name__, "lprl_workload.train.megatron.logprobs"])
    started = [_start(context, job, work, rank, store.port) for rank in range(job.mesh.world)]
    try:
        answers = [_answer(end) if end.poll(WAIT_S) else TimeoutError(f"rank {n}") for n, (_, end) in enumerate(started)]
    finally:
        for process, _ in started:
            process.join(5)
            process.kill()
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _answer(end: Connection) -> Any:
    return torch.load(io.BytesIO(end.recv_bytes()), weights_only=False)


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
    try:
        info = RankInfo(rank, job.mesh.world, "cpu", store=open_store("127.0.0.1", port, serve=False))
        ranks = Ranks(info, job.mesh)
        layout = TrainerLayout(sequence_parallel=job.sequence_parallel)
        answer = work(job, ranks, StagedModel(job.folder, job.shape, job.stages, layout, ranks))
        _send(end, answer)
        ranks.close()
    except Exception as error:
        try:
            _send(end, error)
        except Exception:  # one that cannot be sent
            _send(end, RuntimeError(f"rank {rank}: {error!r}"))
