"""Does a plan fit its devices, its host memory and its cache?"""

from dataclasses import dataclass

from lprl_api.model.model_shape import ModelShape
from lprl_api.rules.case import Case
from lprl_operator.plan.memory import Sizing, fallback_format, gpu_groups
from lprl_operator.plan.types import GpuGroup, Item, JobPlan


@dataclass(frozen=True)
class Misfit:
    """One thing that is too large."""

    kind: str
    """training, sync or rollout (device memory), kv-cache, host, or fallback-bf16."""
    what: str
    """The place, such as `pipeline stage 0`."""
    need_bytes: int
    limit_bytes: int
    items: tuple[Item, ...] = ()

    @property
    def excess_bytes(self) -> int:
        """Bytes over the limit."""
        return self.need_bytes - self.limit_bytes

    def describe(self) -> str:
        """Return what is too large and its largest causes."""
        text = f"{self.what} needs {self.need_bytes / 1e9:.1f} GB of {self.limit_bytes / 1e9:.1f} GB"
        largest = sorted(self.items, key=lambda item: -item.bytes)[:4]
        return f"{text} ({', '.join(f'{item.cause} {item.bytes / 1e9:.1f}' for item in largest)})" if largest else text


def misfits(case: Case, shape: ModelShape, plan: JobPlan, host_limit: int | None) -> list[Misfit]:
    """Return everything of a plan that does not fit, worst first."""
    on_host = case.accelerator is not None and case.accelerator.is_cpu
    found = [] if on_host else [*_devices(plan.gpus, ""), *_cache(plan)]  # with cpu the host limit says it all
    if host_limit is not None and plan.host_bytes_per_node > host_limit:
        found.append(Misfit("host", "host memory of a node", plan.host_bytes_per_node, host_limit, plan.host))
    fallback = fallback_format(case, shape)
    if fallback is not None and case.accelerator is not None and not found:
        sizing = Sizing(case, shape, case.accelerator, plan.ranks, plan.groups, plan.gpus[0].limit_bytes)
        groups = gpu_groups(sizing, fallback)
        found += [Misfit("fallback-bf16", m.what, m.need_bytes, m.limit_bytes, m.items) for m in _devices(groups, "serving BF16, ")]
        found += _fallback_cache(case, groups, plan)
    return sorted(found, key=lambda misfit: -misfit.excess_bytes)


def _devices(gpus: tuple[GpuGroup, ...], prefix: str) -> list[Misfit]:
    found = []
    for group in gpus:
        place = "an engine's GPU" if group.stage is None else f"a GPU of pipeline stage {group.stage}"
        found += [
            Misfit(phase.name, f"{prefix}{place} in {phase.name}", phase.total_bytes, group.limit_bytes, phase.items)
            for phase in group.phases
            if group.limit_bytes and phase.total_bytes > group.limit_bytes
        ]
    return found


def _cache(plan: JobPlan) -> list[Misfit]:
    """The cache must hold the job's longest sequence."""
    engine = plan.engine
    if engine.kv_tokens >= engine.sequence_tokens:
        return []
    served = engine.weight_bytes // engine.slots
    items = (Item(cause="rollout weights", bytes=served),)
    what = f"the KV cache beside the weights holds {engine.kv_tokens} of {engine.sequence_tokens} tokens of a sequence; an engine's GPU"
    return [Misfit("kv-cache", what, served + 1, served, items)]


def _fallback_cache(case: Case, groups: tuple[GpuGroup, ...], plan: JobPlan) -> list[Misfit]:
    """Serving BF16 must leave memory for a cache as well."""
    if not case.sglang or case.accelerator is None or case.accelerator.is_cpu:
        return []
    items = {item.cause: item.bytes for item in groups[-1].phases[-1 if plan.ranks.placement == "colocated" else 0].items}
    share = int(case.accelerator.memory_bytes * case.spec.topology.rollout.memory_fraction)
    weights = items.get("rollout weights", 0)
    if weights < share and "KV cache" in items:
        return []
    return [Misfit("fallback-bf16", "serving BF16, the weights of an engine's GPU", weights, share)]
