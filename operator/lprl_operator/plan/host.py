"""Host memory and /dev/shm of a worker node, and disk of the job."""

from lprl_api.catalog.accelerators import GIB
from lprl_api.derived import effective
from lprl_api.model.formats import Bf16
from lprl_api.model.formats.chosen import export_format
from lprl_api.model.model_shape import Inspection, ModelShape
from lprl_api.model.weights import format_bytes, parameters
from lprl_api.rules.case import Case
from lprl_operator.plan import memory_trainer
from lprl_operator.plan.memory import Sizing
from lprl_operator.plan.memory_engine import sequence_tokens
from lprl_operator.plan.types import Disk, GpuGroup, Item

PROCESS_BYTES = 4 * GIB
"""Host memory of a GPU process: Python, CUDA libraries, pinned staging."""
SAMPLE_TOKEN_BYTES = 16
"""Token id, and log-probabilities of engine, trainer and reference, of one token, as Ray's object stores hold them (episode.py)."""
OBJECT_STORE_BYTES = 8 * GIB
OBJECT_STORE_CPU_BYTES = 256 * 1000 * 1000
CHECKPOINT_BYTES_PER_PARAMETER = 12
"""FP32 masters and two moments."""


def host_items(sizing: Sizing, gpus: tuple[GpuGroup, ...]) -> tuple[Item, ...]:
    """Return host memory of the fullest worker node by cause; with cpu the slots' own memory is in it."""
    case, slots = sizing.case, sizing.ranks.slots_per_node
    stages = [sizing.stage(index) for index in range(sizing.groups.pipeline)]
    if sizing.accelerator.is_cpu:
        fullest = max(gpus, key=lambda group: group.peak.total_bytes)
        items = [Item(cause=item.cause, bytes=item.bytes * slots) for item in fullest.peak.items]
    else:
        items = [Item(cause="processes", bytes=PROCESS_BYTES * slots * (2 if sizing.colocated else 1))]
        if case.megatron:
            offloaded = max(memory_trainer.optimizer_host_bytes(case.spec, held, sizing.groups) for held in stages)
            reference = max(memory_trainer.reference_bytes(case.spec, held, sizing.groups, False) for held in stages)
            items += [Item(cause="CPU optimizer", bytes=offloaded * slots), Item(cause="reference model", bytes=reference * slots)]
        if sizing.sleeps:
            items.append(Item(cause="offloaded trainer", bytes=_offloaded(gpus, case.megatron) * slots))
    copy = max(memory_trainer.checkpoint_copy_bytes(case.spec, held, sizing.groups) for held in stages)
    items.append(Item(cause="checkpoint being written", bytes=copy * slots))
    items.append(Item(cause="object store", bytes=_object_store(sizing)))
    return tuple(item for item in items if item.bytes)


def _offloaded(gpus: tuple[GpuGroup, ...], megatron: bool) -> int:
    """What moves to the host while the engines generate: gradients are dropped, and Megatron's low-precision weights made anew."""
    moved = ("weights", "optimizer") if megatron else ("weights", "optimizer", "reference model")
    return max(sum(item.bytes for item in group.phases[0].items if item.cause in moved) for group in gpus)


def _object_store(sizing: Sizing) -> int:
    spec = sizing.case.spec
    samples = effective.prompts_per_round(spec.algorithm) * spec.algorithm.samples_per_prompt
    # The batch in training and the one being made; those made ahead of it besides.
    data = (2 + spec.algorithm.max_staleness) * samples * sequence_tokens(spec, sizing.shape) * SAMPLE_TOKEN_BYTES
    return max(data, OBJECT_STORE_CPU_BYTES if sizing.accelerator.is_cpu else OBJECT_STORE_BYTES)


def shared_memory_bytes(sizing: Sizing) -> int:
    """Return the size of /dev/shm: Ray's object store, and one bucket a slot in each direction; whole 64 MiB."""
    unit, spec = 64 << 20, sizing.case.spec
    width = 4 if sizing.accelerator.is_cpu else 2
    bucket = min(spec.weight_sync.bucket_bytes, width * parameters(sizing.shape))
    return -(-(_object_store(sizing) + 2 * bucket * sizing.ranks.slots_per_node) // unit) * unit


def disk(case: Case, shape: ModelShape, inspection: Inspection | None) -> Disk:
    """Return what conversions and checkpoints write; a source that is served or trained as it is costs nothing."""
    source = inspection.quantization.format if inspection is not None else None
    fmt, conversion = case.rollout_format(shape), []
    if not isinstance(fmt, Bf16) and source != fmt.kind:
        conversion.append(Item(cause=f"{fmt.kind} for rollout", bytes=format_bytes(shape, fmt)))
    if source not in (None, "none"):
        conversion.append(Item(cause="bf16 for training", bytes=format_bytes(shape, Bf16())))
    settings = case.spec.checkpoint
    count, each = settings.keep + 1, CHECKPOINT_BYTES_PER_PARAMETER * parameters(shape)
    kept = [Item(cause=f"{count} checkpoints", bytes=each * count)]
    every = settings.export_every_steps
    # Those that are due among the checkpoints kept at a time, and the last one's.
    folders = 1 if every is None else min(count, 1 + -(-count * settings.every_steps // every))
    kept.append(Item(cause=f"{folders} bf16 model folder{'s' if folders > 1 else ''} in them", bytes=format_bytes(shape, Bf16()) * folders))
    kept += [Item(cause=f"{name} export", bytes=_export_bytes(case, shape, name)) for name in settings.export_formats]
    return Disk(conversion=tuple(conversion), checkpoints=tuple(kept))


def _export_bytes(case: Case, shape: ModelShape, name: str) -> int:
    return format_bytes(shape, export_format(case.spec.precision, name, shape.moe is not None))
