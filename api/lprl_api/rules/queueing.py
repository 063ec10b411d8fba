"""Rules on where a queue places workers: podTemplate.topology, and labels and annotations of the job that nobody would read.

Who reads what, of a RayCluster's pods: Kueue the annotations of pod templates, KAI those of pod templates and of the RayCluster, KubeRay
for Volcano the labels of the RayCluster (docs/kueue.md).
"""

from collections.abc import Iterator, Mapping

from lprl_api import names
from lprl_api.derived import effective
from lprl_api.derived.spans import told, whole_nodes
from lprl_api.field_error import FieldError, as_text, wrong
from lprl_api.rules.case import Case, Rule
from lprl_api.spec.job import LowPrecisionRLJob

MAX_GROUPS = 17
"""Worker groups of a RayCluster: Kueue's Workloads have at most 18 pod sets, the head's among them."""
LEVELS = tuple(f"{names.KUEUE_POD_SET}{word}-topology" for word in ("required", "preferred", "unconstrained"))
ROLES = ("head", "workers", "rollout", "conversion")


def _level(case: Case) -> Iterator[FieldError]:
    template = case.spec.pod_template
    if template.topology is None:
        return
    given = [n for n, v in (("required", template.topology.required), ("preferred", template.topology.preferred)) if v is not None]
    if len(given) != 1:
        yield wrong("podTemplate.topology", " and ".join(given) or "neither", "exactly one of required and preferred")
    if template.topology_key is not None:
        need = "one of topologyKey, for clusters without a queue, and topology"
        yield wrong("podTemplate.topologyKey", template.topology_key, need)


def _groups(case: Case) -> Iterator[FieldError]:
    """No group of ranks that talk in every layer may be cut by a group of nodes, and each group of nodes is whole."""
    topology = case.spec.pod_template.topology
    if topology is None or topology.group_nodes is None:
        return
    path, size = "podTemplate.topology.groupNodes", topology.group_nodes
    trainer, slots = case.spec.topology.trainer, case.gpus_per_node
    least = whole_nodes(trainer, slots)
    if size % least:
        yield wrong(path, size, f"{least} or a multiple of it: {told(trainer, slots)}")
        return
    nodes, others = effective.side_nodes(case.spec.topology)
    if case.spec.topology.placement == "colocated":
        others = None  # the same nodes
    if nodes is not None and nodes % size:
        yield wrong(
            path, size, f"a divisor of the trainer's {nodes} nodes that is a multiple of {least}, or nothing: all of them are a group"
        )
    elif nodes is not None and (count := groups_of(nodes, size) + groups_of(others or 0, size)) > MAX_GROUPS:
        yield wrong(
            path, size, f"larger groups, or none: {count} groups are more than the {MAX_GROUPS} that a Workload of Kueue has room for"
        )


def groups_of(nodes: int, size: int | None) -> int:
    """Return how many groups `nodes` nodes make."""
    return 0 if nodes == 0 else 1 if size is None else -(-nodes // size)


RULES: tuple[Rule, ...] = (_level, _groups)


def check_queueing(job: LowPrecisionRLJob) -> list[FieldError]:
    """Return what of a job's labels and annotations asks for a place that nobody would give."""
    return [error for rule in (_kueue, _field, _kai, _volcano) for error in rule(job)]


def _annotations(job: LowPrecisionRLJob) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Places of annotations that reach pods, the job's own first."""
    template = job.spec.pod_template
    yield "metadata.annotations", job.metadata.annotations
    yield "spec.podTemplate.annotations", template.annotations
    for role in ROLES:
        if (found := getattr(template, role)) is not None:
            yield f"spec.podTemplate.{role}.annotations", found.annotations


def _kueue(job: LowPrecisionRLJob) -> Iterator[FieldError]:
    labels = job.metadata.labels
    for key in labels:
        if key.startswith(names.KUEUE_POD_SET):
            yield _said(f"metadata.labels.{key}", labels[key], "an annotation of the same name: Kueue reads no label for it")
    for where, found in _annotations(job):
        asked = [key for key in found if key.startswith(names.KUEUE_POD_SET)]
        for key in asked:
            if names.LABEL_QUEUE not in labels:
                need = (
                    f"the job's label {names.LABEL_QUEUE} (of the LocalQueue, also of one named default): without a queue nobody reads it"
                )
                yield _said(f"{where}.{key}", found[key], need)
        if len(levels := [key for key in asked if key in LEVELS]) > 1:
            yield _said(f"{where}.{levels[1]}", found[levels[1]], f"one of these annotations: {levels[0]} is there")


def _field(job: LowPrecisionRLJob) -> Iterator[FieldError]:
    topology, labels = job.spec.pod_template.topology, job.metadata.labels
    if topology is None:
        return
    path = "spec.podTemplate.topology"
    for where, found in _annotations(job):
        for key in found:
            if key.startswith((names.KUEUE_POD_SET, *names.KAI_PLACEMENTS)):
                yield _said(f"{where}.{key}", found[key], f"nothing beside {path}, which says it")
    if names.LABEL_QUEUE in labels:
        return
    if names.LABEL_KAI_QUEUE in labels:
        if names.KAI_TOPOLOGY not in job.metadata.annotations:
            yield _said(f"metadata.annotations.{names.KAI_TOPOLOGY}", "nothing", f"the name of KAI's Topology that {topology.level} is of")
        return
    need = f"the job's label {names.LABEL_QUEUE} or {names.LABEL_KAI_QUEUE}; without a queue podTemplate.topologyKey keeps workers together"
    if any(key.startswith(names.VOLCANO) for key in labels):
        need = f"for Volcano the job's labels {names.VOLCANO_MODE} and {names.VOLCANO_TIER}, of all pods: KubeRay hands on nothing else"
    yield _said(path, topology.level, need)


def _kai(job: LowPrecisionRLJob) -> Iterator[FieldError]:
    found = job.metadata.annotations
    for key in found:
        if not key.startswith(names.KAI_PLACEMENTS):
            continue
        if names.LABEL_KAI_QUEUE not in job.metadata.labels:
            yield _said(
                f"metadata.annotations.{key}",
                found[key],
                f"the job's label {names.LABEL_KAI_QUEUE}: without it KAI leaves the pods pending",
            )
        if names.KAI_TOPOLOGY not in found:
            need = f"the annotation {names.KAI_TOPOLOGY} beside it: the name of the Topology that this level is of"
            yield _said(f"metadata.annotations.{key}", found[key], need)


def _volcano(job: LowPrecisionRLJob) -> Iterator[FieldError]:
    labels = job.metadata.labels
    for where, found in _annotations(job):
        for key in found:
            if key.startswith(names.VOLCANO_TOPOLOGY):
                yield _said(f"{where}.{key}", found[key], "a label of the job with this name: KubeRay makes Volcano's PodGroup from labels")
    mode, tier = labels.get(names.VOLCANO_MODE), labels.get(names.VOLCANO_TIER)
    if mode is not None and mode not in ("hard", "soft"):
        yield _said(f"metadata.labels.{names.VOLCANO_MODE}", mode, "hard or soft")
    if tier is not None and (mode is None or not tier.isdecimal()):
        need = f"a whole number, beside the label {names.VOLCANO_MODE}: without it KubeRay does not look at the tier"
        yield _said(f"metadata.labels.{names.VOLCANO_TIER}", tier, need)


def _said(path: str, got: str, need: str) -> FieldError:
    return FieldError(path, as_text(got), need)
