"""What a plan is made of: frozen values, all bytes as integers."""

from typing import Annotated, Literal

from pydantic import Field

from lprl_api.base import Contract, NonNegativeFloat, PositiveInt
from lprl_api.derived.residency import Phase
from lprl_api.model.formats import WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.wire.runconfig import Ranks

PhaseName = Phase

Amount = Annotated[int, Field(ge=0)]
"""What is computed from fields may be more than any field: it does not fit, and is told."""


class Item(Contract):
    """Bytes of one cause."""

    cause: str
    bytes: Amount


class MemoryPhase(Contract):
    """What lies on a device while one part of a step runs."""

    name: PhaseName
    items: tuple[Item, ...]

    @property
    def total_bytes(self) -> int:
        """Sum over causes."""
        return sum(item.bytes for item in self.items)


class GpuGroup(Contract):
    """GPUs (or processes) that hold the same: one pipeline stage, or the engines."""

    role: Literal["trainer", "rollout", "trainer+rollout"]
    first_rank: Amount
    count: PositiveInt
    stage: Amount | None = None
    """Pipeline stage; None for engines."""
    layers: Amount = 0
    """Decoder layers of the stage."""
    limit_bytes: Amount
    """Usable bytes of the device; 0 when it is not known (accelerator cpu without a host memory limit)."""
    phases: tuple[MemoryPhase, ...]

    @property
    def peak(self) -> MemoryPhase:
        """The fullest phase."""
        return max(self.phases, key=lambda phase: phase.total_bytes)

    @property
    def fits(self) -> bool:
        """Whether the fullest phase stays below the limit."""
        return self.limit_bytes == 0 or self.peak.total_bytes <= self.limit_bytes


class Role(Contract):
    """Pods of one kind."""

    name: Literal["head", "workers", "trainer", "rollout"]
    nodes: PositiveInt
    slots_per_node: Amount
    """GPUs of a pod; processes with accelerator cpu; 0 for the head."""
    description: str


class Groups(Contract):
    """Sizes of the trainer's process groups."""

    tensor: PositiveInt
    pipeline: PositiveInt
    context: PositiveInt
    expert: PositiveInt
    expert_tensor: PositiveInt
    data_parallel: PositiveInt
    expert_data_parallel: PositiveInt
    stage_layers: tuple[PositiveInt, ...]


class Together(Contract):
    """Trainer nodes that belong together."""

    nodes: PositiveInt
    """Of the smallest group of nodes that cuts no group of ranks which talk in every layer."""
    spans: str
    """Of each such group, in words."""
    groups: PositiveInt = 1
    """How many groups of nodes a queue keeps together."""
    level: str = ""
    """Within a domain of which level: a node label; empty where no queue is asked."""
    required: bool = False


class Engine(Contract):
    """One rollout engine."""

    slots: PositiveInt
    tensor: PositiveInt
    expert: PositiveInt
    weight_bytes: Amount
    """Served weights of one engine, all slots."""
    kv_tokens: Amount
    """Tokens the cache of one engine holds, in sequences as long as the job's longest."""
    sequence_tokens: Amount
    """Longest sequence of the job: prompt limit and response limit."""
    concurrency: Amount
    """Longest sequences the KV cache holds at a time."""


class Disk(Contract):
    """Bytes written to volumes."""

    conversion: tuple[Item, ...]
    checkpoints: tuple[Item, ...]

    @property
    def conversion_bytes(self) -> int:
        """Sum of what conversion writes."""
        return sum(item.bytes for item in self.conversion)

    @property
    def checkpoint_bytes(self) -> int:
        """Sum of what the run keeps at most."""
        return sum(item.bytes for item in self.checkpoints)


class Push(Contract):
    """One weight push, predicted from measured rates (push.py)."""

    seconds: NonNegativeFloat
    nbytes: Amount
    """Served bytes."""
    tensors: Amount
    """Under Hugging Face names."""
    bound: str
    """What takes most of it."""
    parts: dict[str, float]
    """Seconds of what takes time; all but `engine` work side by side."""


class JobPlan(Contract):
    """Everything the spec implies in numbers; made by plan.make_plan, read by render, status and the command line."""

    shape: ModelShape
    parameters: PositiveInt
    accelerator: str
    ranks: Ranks
    groups: Groups
    engine: Engine
    roles: tuple[Role, ...]
    gpus: tuple[GpuGroup, ...]
    host: tuple[Item, ...]
    """Host memory of the fullest worker node, by cause."""
    shared_memory_bytes: Amount
    """Size of /dev/shm of a worker pod."""
    disk: Disk
    rollout_format: WeightFormat
    training_format: WeightFormat
    push: Push | None = None
    """None on a CPU."""
    together: Together | None = None
    """None where the trainer has one node, or no rank talks to another in a layer."""
    notes: tuple[str, ...] = Field(())

    @property
    def nodes(self) -> int:
        """Worker nodes in all."""
        return self.ranks.nodes

    @property
    def gpus_per_node(self) -> int:
        """GPUs (or processes) of a node."""
        return self.ranks.slots_per_node

    @property
    def host_bytes_per_node(self) -> int:
        """Host memory of the fullest worker node."""
        return sum(item.bytes for item in self.host)

    @property
    def summary(self) -> str:
        """One line, as status.plan.summary shows it."""
        g, r = self.groups, self.ranks
        layout = f"TP{g.tensor} PP{g.pipeline} CP{g.context} EP{g.expert} DP{g.data_parallel}"
        return f"{r.nodes} x {r.slots_per_node} {r.accelerator}, {r.trainer_ranks} ranks ({layout}), {r.engines} engines"
