"""What would fit: small changes of the spec, tried for real."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel

from lprl_api.catalog.accelerators import ACCELERATORS
from lprl_api.field_error import FieldError, as_text
from lprl_api.rules.case import Case
from lprl_api.spec.job import LowPrecisionRLJobSpec
from lprl_operator.plan.fit import Misfit

ModelT = TypeVar("ModelT", bound=BaseModel)
Fits = Callable[[LowPrecisionRLJobSpec], bool]
_PATHS = {
    "training": "topology.trainer",
    "sync": "topology.rollout.gpusPerEngine",
    "rollout": "topology.rollout.memoryFraction",
    "kv-cache": "topology.rollout.memoryFraction",
    "host": "topology.nodes",
    "fallback-bf16": "stability.action",
}
_MOST = 4


def explain_misfits(case: Case, found: list[Misfit], fits: Fits) -> list[FieldError]:
    """Return one error a kind of misfit; the changes listed make the whole spec fit, each on its own."""
    changes = [text for text, spec in _changes(case) if fits(spec)][:_MOST] if found else []
    worst: dict[str, Misfit] = {}
    for misfit in found:
        worst.setdefault(misfit.kind, misfit)
    advice = "; ".join(changes) if changes else _several(case)
    return [
        FieldError(f"spec.{_path(case, kind)}", _value(case, kind), f"less memory: {misfit.describe()}. Fits with: {advice}")
        for kind, misfit in worst.items()
    ]


def _several(case: Case) -> str:
    if case.accelerator is not None and case.accelerator.is_cpu:
        return "a machine with more memory, or a smaller model"
    return "several changes at once: more nodes, more parallelism or larger GPUs"


def _path(case: Case, kind: str) -> str:
    on_host = case.accelerator is not None and case.accelerator.is_cpu
    return "topology.gpusPerNode" if on_host and kind == "host" else _PATHS[kind]


def _value(case: Case, kind: str) -> str:
    topology = case.spec.topology
    t = topology.trainer
    values: dict[str, object] = {
        "training": f"tensor {t.tensor}, pipeline {t.pipeline}, context {t.context}, expert {t.expert}, {t.max_tokens_per_gpu} tokens",
        "sync": topology.rollout.gpus_per_engine,
        "rollout": topology.rollout.memory_fraction,
        "kv-cache": topology.rollout.memory_fraction,
        "host": case.gpus_per_node if case.accelerator is not None and case.accelerator.is_cpu else topology.nodes,
        "fallback-bf16": case.spec.stability.action,
    }
    return as_text(values[kind])


def _changes(case: Case) -> Iterator[tuple[str, LowPrecisionRLJobSpec]]:
    """Yield (text, changed spec), the cheapest change first."""
    yield from _single_fields(case)
    yield from _sizes(case)
    yield from _devices(case)


def _single_fields(case: Case) -> Iterator[tuple[str, LowPrecisionRLJobSpec]]:
    spec = case.spec
    if case.accelerator is not None and case.accelerator.is_cpu and case.gpus_per_node > 1:
        size = case.gpus_per_node // 2
        yield f"topology.gpusPerNode {size}", _with(spec, {"topology": {"gpus_per_node": size}})
    for concurrency in (8, 1) if not case.sglang else ():
        text = f"topology.rollout.maxConcurrency {concurrency}"
        yield text, _with(spec, {"topology": {"rollout": {"max_concurrency": concurrency}}})
    if spec.stability.action == "fallback-bf16":
        yield "stability.action warn", _with(spec, {"stability": {"action": "warn"}})
    for fraction in (0.8, 0.6, 0.5):
        if fraction != spec.topology.rollout.memory_fraction:
            yield f"topology.rollout.memoryFraction {fraction}", _with(spec, {"topology": {"rollout": {"memory_fraction": fraction}}})
    if spec.topology.trainer.recompute != "full":
        yield "topology.trainer.recompute full", _with(spec, {"topology": {"trainer": {"recompute": "full"}}})
    for divisor in (2, 4):
        tokens = spec.topology.trainer.max_tokens_per_gpu // divisor
        yield f"topology.trainer.maxTokensPerGpu {tokens}", _with(spec, {"topology": {"trainer": {"max_tokens_per_gpu": tokens}}})
    if case.megatron and not spec.optimizer.cpu_offload:
        changed = {"optimizer": {"cpu_offload": True, "precision_aware": True}}
        yield "optimizer.cpuOffload true (with precisionAware true)", _with(spec, changed)


def _sizes(case: Case) -> Iterator[tuple[str, LowPrecisionRLJobSpec]]:
    spec, topology = case.spec, case.spec.topology
    for factor in (2, 4, 8):
        size = topology.rollout.gpus_per_engine * factor
        changed: dict[str, Any] = {"gpus_per_engine": size, "tensor": None}
        if topology.rollout.expert > 1:
            changed["expert"] = topology.rollout.expert * factor
        yield f"topology.rollout.gpusPerEngine {size}", _with(spec, {"topology": {"rollout": changed}})
    for name in ("expert", "tensor", "pipeline"):
        for factor in (2, 4):
            size = getattr(topology.trainer, name) * factor
            extra: dict[str, Any] = {"sequence_parallel": True} if name == "tensor" else {}
            text = f"topology.trainer.{name} {size}" + (" (with sequenceParallel true)" if extra else "")
            yield text, _with(spec, {"topology": {"trainer": {name: size, **extra}}})
    if isinstance(topology.nodes, int):
        yield "topology.nodes auto", _with(spec, {"topology": {"nodes": "auto", "trainer": {"nodes": None}, "rollout": {"nodes": None}}})


def _devices(case: Case) -> Iterator[tuple[str, LowPrecisionRLJobSpec]]:
    if case.accelerator is None or case.accelerator.is_cpu:
        return
    larger = [a for a in ACCELERATORS.values() if a.memory_bytes > case.accelerator.memory_bytes and not a.is_blackwell]
    for accelerator in sorted(larger, key=lambda a: a.memory_bytes):
        changed = {"accelerator": accelerator.name, "gpus_per_node": case.gpus_per_node}
        yield f"topology.accelerator {accelerator.name}", _with(case.spec, {"topology": changed})


def _with(model: LowPrecisionRLJobSpec, changes: dict[str, Any]) -> LowPrecisionRLJobSpec:
    """Return a copy with nested snake_case changes; values are legal by construction or refused by the rules."""
    return _copy(model, changes)


def _copy(model: ModelT, changes: dict[str, Any]) -> ModelT:
    updates: dict[str, Any] = {}
    for name, value in changes.items():
        old = getattr(model, name)
        updates[name] = _copy(old, value) if isinstance(value, dict) and isinstance(old, BaseModel) else value
    return model.model_copy(update=updates)
