"""A plan as text: roles, ranks, a bar per group of like GPUs, and why it fits."""

import textwrap

from lprl_api.derived.spans import counted
from lprl_api.model.formats import described
from lprl_operator.plan.types import GpuGroup, Item, JobPlan, MemoryPhase, Push, Together

_BAR = 40
_LETTERS = {
    "weights": "W",
    "low-precision weights": "Q",
    "gradients": "G",
    "optimizer": "O",
    "activations": "A",
    "logits": "L",
    "reference model": "F",
    "runtime": "R",
    "slept engine": "S",
    "rollout weights": "E",
    "KV cache": "K",
    "engine work": "N",
    "sync staging": "T",
}


def explain(plan: JobPlan) -> str:
    """Return the plan as a page of text (at most 140 columns, no colours, ends with a newline)."""
    lines = [*_head(plan), "", *_roles(plan), "", *_gpus(plan), "", *_host(plan)]
    if plan.notes:
        wrapped = (textwrap.wrap(note, 136, initial_indent="  - ", subsequent_indent="    ") for note in plan.notes)
        lines += ["", "Notes", *(line for note in wrapped for line in note)]
    return "\n".join(lines) + "\n"


def gigabytes(size: int) -> str:
    """Return bytes in GB (1e9), one digit after the point; MB below 0.1 GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.2f} M"


def _head(plan: JobPlan) -> list[str]:
    shape, towers = plan.shape, plan.shape.tower_parameters
    remark = " (language model only)" if towers is None else f", {_count(towers)} of them outside the language model" if towers else ""
    return [
        f"Model      {shape.architecture}, {shape.layers} layers, {_count(plan.parameters)} parameters{remark}",
        f"Precision  trained as {described(plan.training_format)}; served as {described(plan.rollout_format)}",
        f"Plan       {plan.summary}",
    ]


def _roles(plan: JobPlan) -> list[str]:
    lines = ["Roles"]
    lines += [f"  {role.name:<8} {role.nodes:>4} pod{'s' if role.nodes > 1 else ' '}  {role.description}" for role in plan.roles]
    g, engine = plan.groups, plan.engine
    dense = f"tensor {g.tensor}, pipeline {g.pipeline}, context {g.context}, data {g.data_parallel}"
    experts = f"; experts: expert {g.expert}, expertTensor {g.expert_tensor}, data {g.expert_data_parallel}" if plan.shape.moe else ""
    lines.append(f"  trainer  {plan.ranks.trainer_ranks} ranks: {dense}{experts}")
    lines.append(
        f"  rollout  {plan.ranks.engines} engines of {engine.slots}: tensor {engine.tensor}, expert {engine.expert}; weights "
        f"{gigabytes(engine.weight_bytes)} an engine, KV cache {engine.kv_tokens} tokens = {engine.concurrency} longest sequences"
    )
    return [*lines, *_wrapped(f"  nodes    {_together(plan.together)}", " " * 11)] if plan.together is not None else lines


def _together(found: Together) -> str:
    where = found.spans
    if found.nodes > 1:
        where += f"; a level of a queue's topology must hold {counted(found.nodes)} to cut none"
    if not found.level:
        return where
    each = "each group of nodes" if found.groups > 1 else "all trainer nodes"
    rule = "required" if found.required else "preferred"
    return f"{where}: {found.groups} group{'s' if found.groups > 1 else ''}, {each} within one {found.level} ({rule})"


def _gpus(plan: JobPlan) -> list[str]:
    unit = "process" if plan.accelerator == "cpu" else "GPU"
    lines = [f"Memory of each {unit}", *textwrap.wrap(_legend(plan), 136, initial_indent="  ", subsequent_indent="  ")]
    for group in plan.gpus:
        lines.append(f"  {_place(group, unit)}")
        lines += [line for phase in group.phases for line in _bar(group, phase)]
    return lines


def _legend(plan: JobPlan) -> str:
    causes = {item.cause: None for group in plan.gpus for phase in group.phases for item in phase.items}
    return ", ".join(f"{_LETTERS[cause]} {cause}" for cause in causes)


def _place(group: GpuGroup, unit: str) -> str:
    last = group.first_rank + group.count - 1
    what = f"stage {group.stage}, {group.layers} layers" if group.stage is not None else "engines"
    limit = f"limit {gigabytes(group.limit_bytes)}" if group.limit_bytes else "limit not known"
    fit = "fits" if group.fits else "DOES NOT FIT"
    free = (
        f", {gigabytes(group.limit_bytes - group.peak.total_bytes)} spare in {group.peak.name}" if group.limit_bytes and group.fits else ""
    )
    return f"{unit} {group.first_rank}-{last} ({group.role}, {what}): {limit}, {fit}{free}"


def _bar(group: GpuGroup, phase: MemoryPhase) -> list[str]:
    full = group.limit_bytes or max(p.total_bytes for p in group.phases)
    bar, done = "", 0
    for item in phase.items:
        done += item.bytes
        bar += _LETTERS[item.cause] * (round(done / full * _BAR) - len(bar))
    causes = ", ".join(f"{item.cause} {item.bytes / 1e9:.1f}" for item in _largest_first(phase.items))
    head = f"    {phase.name:<8} |{bar[:_BAR]:<{_BAR}}| {gigabytes(phase.total_bytes):>9}  "
    return _wrapped(head + causes, " " * len(head))


def _wrapped(text: str, indent: str) -> list[str]:
    """Return text in lines of at most 140 columns, the rest indented; the first line keeps its spacing."""
    return textwrap.wrap(text, 140, subsequent_indent=indent, drop_whitespace=True, replace_whitespace=False) or [text]


def _largest_first(items: tuple[Item, ...]) -> list[Item]:
    return sorted(items, key=lambda item: -item.bytes)


def _host(plan: JobPlan) -> list[str]:
    disk = plan.disk
    lines = [
        f"Host memory a node  {gigabytes(plan.host_bytes_per_node)}: {_list(plan.host)}",
        f"/dev/shm a pod      {gigabytes(plan.shared_memory_bytes)}",
        f"Conversion disk     {gigabytes(disk.conversion_bytes)}" + (f": {_list(disk.conversion)}" if disk.conversion else ""),
        f"Checkpoint disk     {gigabytes(disk.checkpoint_bytes)}: {_list(disk.checkpoints)}",
    ]
    lines += [_push(plan.push)] if plan.push is not None else []
    return [part for line in lines for part in _wrapped(line, " " * 20)]


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def _push(push: Push) -> str:
    large = [(name, seconds) for name, seconds in push.parts.items() if seconds >= push.seconds / 50]
    parts = ", ".join(f"{name} {_seconds(seconds)}" for name, seconds in sorted(large, key=lambda item: -item[1]))
    size = f"{gigabytes(push.nbytes)} in {push.tensors} tensors"
    return f"Weight push         about {_seconds(push.seconds)} ({size}, by rates of H200s): {parts}; bound by {push.bound}"


def _list(items: tuple[Item, ...]) -> str:
    return ", ".join(f"{item.cause} {gigabytes(item.bytes)}" for item in _largest_first(items))
