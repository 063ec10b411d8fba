"""How a group deals samples to trainer ranks, and puts their answers back in order (pure)."""

from collections.abc import Sequence
from typing import TypeVar

from lprl_api.wire.runconfig import RunConfig
from lprl_workload.data import TrainSample
from lprl_workload.train.mesh import TrainMesh
from lprl_workload.train.step_plan import StepPlan, TokenBudget, schedule

T = TypeVar("T")


def mesh_of(run: RunConfig) -> TrainMesh:
    """Return the trainer's ranks as planned."""
    layout = run.trainer
    return TrainMesh(
        dp=run.ranks.data_parallel, cp=layout.context, tp=layout.tensor, pp=layout.pipeline, ep=layout.expert, etp=layout.expert_tensor
    )


def plan_of(run: RunConfig, samples: Sequence[TrainSample]) -> StepPlan:
    """Return the plan of one pass over `samples`."""
    lengths = [len(s.prompt_ids) + len(s.response_ids) for s in samples]
    budget = TokenBudget(run.trainer.max_tokens_per_gpu, balance="tokens" if run.algorithm.balance_data else "order")
    return schedule(lengths, mesh_of(run), budget)


def dealt(plan: StepPlan, samples: Sequence[TrainSample], rank: int) -> list[list[TrainSample]]:
    """Return the micro-batches of `rank` in the plan's only pass; none where it takes no data."""
    if not plan.steps or not plan.mesh.takes_data(rank):
        return []
    return [[samples[n] for n in micro] for micro in plan.micro_batches(0, rank)]


def collect(plan: StepPlan, answers: Sequence[Sequence[Sequence[T]]], count: int) -> list[T]:
    """Undo `dealt`: answers[rank][i] are of its micro-batch i; those of each data index' answering rank are taken."""
    ordered: dict[int, T] = {}
    for data in range(plan.mesh.dp if plan.steps else 0):
        rank = plan.mesh.answering_rank(data)
        for numbers, values in zip(plan.micro_batches(0, rank), answers[rank], strict=True):
            ordered.update(zip(numbers, values, strict=True))
    return [ordered[number] for number in range(count)]


def response_tokens(samples: Sequence[TrainSample]) -> int:
    """Return the response tokens of a batch, a loss denominator."""
    return sum(len(sample.response_ids) for sample in samples)
