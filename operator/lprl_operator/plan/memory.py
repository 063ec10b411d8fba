"""Bytes per GPU by cause: each group of like GPUs in each phase of a step."""

from collections.abc import Mapping
from dataclasses import dataclass

from lprl_api.catalog.accelerators import Accelerator
from lprl_api.derived.residency import RESIDENT
from lprl_api.model.formats import Bf16, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.rules.case import Case
from lprl_api.wire.runconfig import Ranks
from lprl_operator.plan import hardware, memory_trainer
from lprl_operator.plan.memory_engine import EngineMemory, engine_runtime_bytes, sequence_tokens, sglang_memory, torch_memory
from lprl_operator.plan.parallel import StageWeights, stage_weights
from lprl_operator.plan.types import Engine, GpuGroup, Groups, Item, MemoryPhase, PhaseName


@dataclass(frozen=True)
class Sizing:
    """Inputs of the memory model: one layout of one spec."""

    case: Case
    shape: ModelShape
    accelerator: Accelerator
    ranks: Ranks
    groups: Groups
    limit_bytes: int
    """Usable bytes of a slot, 0 when unknown."""

    @property
    def colocated(self) -> bool:
        """Whether trainer and engines share the GPUs."""
        return self.ranks.placement == "colocated"

    @property
    def sleeps(self) -> bool:
        """Whether the side that waits leaves the device, part by part (derived/residency.py)."""
        return self.colocated and not self.accelerator.is_cpu

    def stage(self, index: int) -> StageWeights:
        """Return the weights of one rank of a stage."""
        return stage_weights(self.shape, self.groups, index, self.case.training_format(self.shape))


def engine_memory(sizing: Sizing, fmt: WeightFormat) -> EngineMemory:
    """Return one slot of an engine that serves `fmt`."""
    case = sizing.case
    if not case.sglang or sizing.accelerator.is_cpu:
        return torch_memory(case.spec, sizing.shape, fmt, sizing.accelerator)
    memory = sizing.accelerator.memory_bytes
    return sglang_memory(case.spec, sizing.shape, fmt, memory, case.engine_tensor)


def make_engine(sizing: Sizing) -> Engine:
    """Return the numbers of one rollout engine."""
    case, rollout = sizing.case, sizing.case.spec.topology.rollout
    memory, longest = engine_memory(sizing, case.rollout_format(sizing.shape)), sequence_tokens(case.spec, sizing.shape)
    return Engine(
        slots=rollout.gpus_per_engine,
        tensor=case.engine_tensor,
        expert=rollout.expert,
        weight_bytes=memory.weights * rollout.gpus_per_engine,
        kv_tokens=memory.kv_tokens,
        sequence_tokens=longest,
        concurrency=memory.kv_tokens // longest,
    )


def gpu_groups(sizing: Sizing, fmt: WeightFormat) -> tuple[GpuGroup, ...]:
    """Return every group of like GPUs, serving `fmt`: pipeline stages, and under split placement the engines."""
    engine = engine_memory(sizing, fmt)
    each = sizing.ranks.trainer_ranks // sizing.groups.pipeline
    stages = tuple(_trainer_group(sizing, index, each, engine) for index in range(sizing.groups.pipeline))
    return stages if sizing.colocated else (*stages, _engine_group(sizing, engine))


def _trainer_group(sizing: Sizing, index: int, count: int, engine: EngineMemory) -> GpuGroup:
    held = sizing.stage(index)
    state = _state(sizing, held)
    runtime = [Item(cause="runtime", bytes=hardware.runtime_bytes(sizing.accelerator) + _deep_ep(sizing))]
    work = _work(sizing, index)
    served = [*_engine_items(engine), *_engine_work(sizing), *_cache(engine)] if sizing.colocated else []
    slept = [Item(cause="slept engine", bytes=hardware.SLEPT_ENGINE_BYTES)] if sizing.sleeps else []
    of_the_trainer: dict[PhaseName, list[Item]] = {"training": [*work, *runtime, *slept], "sync": [*runtime, *slept], "rollout": runtime}
    phases = []
    for name, more in of_the_trainer.items() if sizing.colocated else list(of_the_trainer.items())[:2]:
        staging = _staging(sizing, held) if name == "sync" else []
        phases.append(_phase(name, [*_there(sizing, name, state), *more, *_there(sizing, name, served), *staging]))
    return GpuGroup(
        role="trainer+rollout" if sizing.colocated else "trainer",
        first_rank=index * count,
        count=count,
        stage=index,
        layers=sizing.groups.stage_layers[index],
        limit_bytes=sizing.limit_bytes,
        phases=tuple(phases),
    )


PARTS: Mapping[str, tuple[str, str]] = {
    "weights": ("trainer", "weights"),
    "low-precision weights": ("trainer", "weights"),
    "gradients": ("trainer", "optimizer"),
    "optimizer": ("trainer", "optimizer"),
    "reference model": ("trainer", "reference"),
    "rollout weights": ("engine", "weights"),
    "engine work": ("engine", "kv"),
    "KV cache": ("engine", "kv"),
}
"""Cause -> whose part it belongs to, and which."""


def _there(sizing: Sizing, phase: PhaseName, items: list[Item]) -> list[Item]:
    """Return what of trainer and engines is on the device in a phase: all that does not sleep then. A cache that grows with use is empty
    while nothing is generated.
    """
    resident = RESIDENT[phase]
    up: set[tuple[str, str]] = {("trainer", part) for part in resident.trainer} | {("engine", part) for part in resident.engine}
    if not sizing.sleeps:
        up |= set(PARTS.values()) - {("engine", "kv")}
    return [item for item in items if PARTS[item.cause] in up]


def _engine_group(sizing: Sizing, engine: EngineMemory) -> GpuGroup:
    served = [*_engine_items(engine), *_engine_work(sizing), *_cache(engine)]
    staging = Item(cause="sync staging", bytes=sizing.case.spec.weight_sync.bucket_bytes)
    return GpuGroup(
        role="rollout",
        first_rank=sizing.ranks.trainer_ranks,
        count=sizing.ranks.rollout_nodes * sizing.ranks.slots_per_node,
        limit_bytes=sizing.limit_bytes,
        phases=(_phase("rollout", served), _phase("sync", [*served, staging])),
    )


def _phase(name: PhaseName, items: list[Item]) -> MemoryPhase:
    """Add up equal causes and leave out empty ones."""
    sums: dict[str, int] = {}
    for item in items:
        sums[item.cause] = sums.get(item.cause, 0) + item.bytes
    return MemoryPhase(name=name, items=tuple(Item(cause=cause, bytes=size) for cause, size in sums.items() if size))


def _state(sizing: Sizing, held: StageWeights) -> list[Item]:
    spec, fmt = sizing.case.spec, sizing.case.training_format(sizing.shape)
    cpu = sizing.accelerator.is_cpu
    if sizing.case.megatron and not cpu:
        return memory_trainer.megatron_state(spec, held, sizing.groups, fmt)
    # On a CPU both trainers have FP32 masters, and forward weights beside them.
    items = memory_trainer.torch_state(spec, held, sizing.groups, cpu)
    reference = memory_trainer.reference_bytes(spec, held, sizing.groups, cpu)
    return [*items, Item(cause="reference model", bytes=reference)]


def _work(sizing: Sizing, stage: int) -> list[Item]:
    spec, tokens = sizing.case.spec, memory_trainer.micro_batch_tokens(sizing.case.spec, sizing.shape, sizing.groups)
    items = [Item(cause="activations", bytes=memory_trainer.activations(spec, sizing.shape, sizing.groups, stage, tokens))]
    if stage == sizing.groups.pipeline - 1:
        items.append(Item(cause="logits", bytes=memory_trainer.logits(spec, sizing.shape, sizing.groups, tokens)))
    return items


def _deep_ep(sizing: Sizing) -> int:
    return hardware.DEEP_EP_BYTES if sizing.case.spec.topology.trainer.deep_ep else 0


def _engine_items(engine: EngineMemory) -> list[Item]:
    return [Item(cause="rollout weights", bytes=engine.weights)]


def _cache(engine: EngineMemory) -> list[Item]:
    return [Item(cause="KV cache", bytes=engine.kv_cache)]


def _engine_work(sizing: Sizing) -> list[Item]:
    own_process = 0 if sizing.accelerator.is_cpu and sizing.colocated and not sizing.case.sglang else 1
    return [Item(cause="engine work", bytes=own_process * engine_runtime_bytes(sizing.accelerator, hardware.ENGINE_WORK_BYTES))]


def _staging(sizing: Sizing, held: StageWeights) -> list[Item]:
    """A bucket being filled and one being read, and the largest tensor put together."""
    width = 4 if sizing.accelerator.is_cpu else 2
    bucket = min(sizing.case.spec.weight_sync.bucket_bytes, width * held.total)
    return [Item(cause="sync staging", bytes=2 * bucket + 2 * width * held.largest)]


def fallback_format(case: Case, shape: ModelShape) -> WeightFormat | None:
    """Return BF16 where the stability guard may fall back to it, else None."""
    fmt = case.rollout_format(shape)
    return Bf16() if case.spec.stability.action == "fallback-bf16" and not isinstance(fmt, Bf16) else None
