"""Bytes of a rollout engine by cause."""

from dataclasses import dataclass
from functools import lru_cache

from lprl_api.catalog.accelerators import Accelerator
from lprl_api.derived import effective
from lprl_api.model.formats import Bf16, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.model.weights import KEPT, sized_weights, whole_parameters
from lprl_api.spec.job import LowPrecisionRLJobSpec
from lprl_operator.plan.caches import sequence_bytes
from lprl_operator.plan.hardware import CPU_RUNTIME_BYTES

TORCH_CONCURRENCY = 32
"""Sequences the torch engine decodes at a time when maxConcurrency is not set, as planned for."""


@dataclass(frozen=True)
class EngineMemory:
    """One slot of an engine."""

    weights: int
    kv_cache: int
    kv_tokens: int
    """Tokens the whole engine's cache holds, in sequences as long as the job's longest."""


def sequence_tokens(spec: LowPrecisionRLJobSpec, shape: ModelShape) -> int:
    """Return the longest sequence of the job, tokens."""
    drawn = [spec.sampling]
    if spec.evaluation is not None:
        drawn.append(effective.evaluation_sampling(spec.evaluation, spec.sampling))
    length = effective.prompt_tokens(spec.data) + max(
        effective.episode_tokens(spec.episode, sampling.max_response_tokens) for sampling in drawn
    )
    return min(length, effective.context_length(spec.topology.rollout, shape))


@lru_cache(KEPT)
def slot_weight_bytes(shape: ModelShape, fmt: WeightFormat, tensor: int) -> int:
    """Return the served weights on one slot; expert parallelism moves whole experts, so the bytes of a slot do not change."""
    total = 2 * (shape.tower_parameters or 0)
    for found in sized_weights(shape, fmt):
        total += found.nbytes if found.weight.sharding == "replicated" else -(-found.nbytes // tensor)
    return total


def sglang_memory(spec: LowPrecisionRLJobSpec, shape: ModelShape, fmt: WeightFormat, device_bytes: int, tensor: int) -> EngineMemory:
    """Return what SGLang takes: memoryFraction of the device, the weights first and the KV cache in what is left."""
    weights = slot_weight_bytes(shape, fmt, tensor)
    cache = max(0, int(device_bytes * spec.topology.rollout.memory_fraction) - weights)
    longest = sequence_tokens(spec, shape)
    return EngineMemory(weights, cache, cache * longest // sequence_bytes(shape, longest, tensor, 2))


def torch_memory(spec: LowPrecisionRLJobSpec, shape: ModelShape, fmt: WeightFormat, accelerator: Accelerator) -> EngineMemory:
    """Return what the torch engine takes: dequantised weights for its arithmetic, and a KV cache that grows with use."""
    width = 4 if accelerator.is_cpu else 2
    weights = whole_parameters(shape) * width
    if not isinstance(fmt, Bf16):
        weights += sum(found.nbytes for found in sized_weights(shape, fmt) if found.taken)
    samples = effective.prompts_per_round(spec.algorithm) * spec.algorithm.samples_per_prompt
    concurrency = min(samples, spec.topology.rollout.max_concurrency or TORCH_CONCURRENCY)
    longest = sequence_tokens(spec, shape)
    return EngineMemory(weights, concurrency * sequence_bytes(shape, longest, 1, width), concurrency * longest)


def engine_runtime_bytes(accelerator: Accelerator, work: int) -> int:
    """Return what an engine takes outside weights and cache."""
    return CPU_RUNTIME_BYTES if accelerator.is_cpu else work
