"""make_plan: a legal spec and a shape to the whole plan, or every reason why not."""

from itertools import takewhile

from lprl_api.derived import effective
from lprl_api.errors import UserError
from lprl_api.field_error import FieldError, wrong
from lprl_api.model.model_shape import Inspection, ModelShape
from lprl_api.model.weights import whole_parameters
from lprl_api.rules.case import Case
from lprl_api.rules.check import check
from lprl_api.rules.layout import engine_step, node_step
from lprl_api.spec.job import LowPrecisionRLJobSpec
from lprl_api.wire.runconfig import Ranks
from lprl_operator.plan import host, remedies
from lprl_operator.plan.fit import Misfit, misfits
from lprl_operator.plan.hardware import usable_bytes
from lprl_operator.plan.memory import Sizing, gpu_groups, make_engine
from lprl_operator.plan.notes import limit_notes, plan_notes
from lprl_operator.plan.parallel import make_groups
from lprl_operator.plan.push import plan_push
from lprl_operator.plan.topology import MAX_NODES, Nodes, candidates, data_parallel, least_engine_nodes, ranks_of, roles, together
from lprl_operator.plan.types import JobPlan


class PlanError(UserError):
    """The spec cannot be planned; carries every error at once."""

    def __init__(self, errors: list[FieldError]) -> None:
        self.errors = errors
        super().__init__("; ".join(map(str, errors)), "change the fields named")


def make_plan(
    spec: LowPrecisionRLJobSpec,
    shape: ModelShape | None = None,
    *,
    inspection: Inspection | None = None,
    host_bytes_per_node: int | None = None,
    free_bytes: int | None = None,
    planned: bool = False,
) -> JobPlan:
    """Return the plan of a spec, or raise PlanError.

    `shape`: the model's; default the inspection's, else the known shape the spec names. `host_bytes_per_node`: host memory to
    stay within (None: reported only; it is what limits accelerator cpu). `free_bytes`: free on the conversion volume (default the
    inspection's figure). `planned`: of a job that is only planned (rules.check). With `nodes: auto` the plan has the fewest nodes that fit.
    """
    case = Case.of(spec, shape, inspection)
    errors = check(spec, case.shape, inspection, planned=planned)
    if case.shape is None and not errors:
        errors.append(wrong("model.shape", spec.model.shape, "a known shape, or the inspection of the source"))
    if errors or case.shape is None:
        raise PlanError(errors)
    plan, found = _first_fit(case, case.shape, inspection, host_bytes_per_node)
    if plan is None:
        raise PlanError([wrong("topology.nodes", spec.topology.nodes, _no_layout(case))])
    if found:
        raise PlanError(remedies.explain_misfits(case, found, lambda other: _fits(other, shape, inspection, host_bytes_per_node)))
    _check_disk(plan, free_bytes if free_bytes is not None else (inspection.free_bytes if inspection else None))
    return plan


def _first_fit(case: Case, shape: ModelShape, inspection: Inspection | None, host_limit: int | None) -> tuple[JobPlan | None, list[Misfit]]:
    """Return the first layout that fits, else the one with the smallest peak and what is wrong with it.

    More nodes never need more memory each, so not every layout is planned: steps double until one fits, and halve back to the first.
    """
    layouts = _layouts(case)
    best: tuple[JobPlan | None, list[Misfit]] = (None, [])
    least: int | None = None
    below, at = -1, 0
    while at < len(layouts):
        plan = _plan(case, shape, inspection, host_limit, ranks_of(case, layouts[at]))
        found = misfits(case, shape, plan, host_limit)
        if not found:
            best = plan, []
            break
        excess = max(misfit.excess_bytes for misfit in found)
        if least is not None and excess >= least:
            return best  # more nodes no longer help
        best, least, below = (plan, found), excess, at
        at = max(at + 1, min(2 * at + 1, len(layouts) - 1))
    while at < len(layouts) and at - below > 1:
        middle = (below + at) // 2
        plan = _plan(case, shape, inspection, host_limit, ranks_of(case, layouts[middle]))
        if misfits(case, shape, plan, host_limit):
            below = middle
        else:
            best, at = (plan, []), middle
    return best


def _layouts(case: Case) -> list[Nodes]:
    most = effective.global_batch_size(case.spec.algorithm)
    return list(takewhile(lambda nodes: data_parallel(case, nodes[0]) <= most, candidates(case)))


def _no_layout(case: Case) -> str:
    """Return what nodes would have to be: written ones are too few or do not divide, `auto` is tried up to a limit."""
    steps = f"the trainer takes multiples of {node_step(case)}, the engines of {engine_step(case)}"
    if case.spec.topology.nodes != "auto":
        return f"more nodes, or auto: {steps}"
    evaluation = case.spec.evaluation
    if evaluation is not None and evaluation.engines:
        steps += f", with evaluation.engines {evaluation.engines} at least {least_engine_nodes(case)}"
    return f"a layout of at most {MAX_NODES} nodes a side: {steps}"


def _fits(spec: LowPrecisionRLJobSpec, shape: ModelShape | None, inspection: Inspection | None, host_limit: int | None) -> bool:
    """Whether a changed spec is legal and fits: if any layout does, the one with the most nodes does."""
    case = Case.of(spec, shape, inspection)
    if case.shape is None or check(spec, case.shape, inspection, planned=True):
        return False
    layouts = _layouts(case)
    if not layouts:
        return False
    plan = _plan(case, case.shape, inspection, host_limit, ranks_of(case, layouts[-1]))
    return not misfits(case, case.shape, plan, host_limit)


def _plan(case: Case, shape: ModelShape, inspection: Inspection | None, host_limit: int | None, ranks: Ranks) -> JobPlan:
    assert case.accelerator is not None, "checked by rules_hardware"
    groups = make_groups(shape, case.spec.topology.trainer, ranks.trainer_ranks)
    limit = usable_bytes(case.accelerator, ranks.slots_per_node, host_limit)
    sizing = Sizing(case, shape, case.accelerator, ranks, groups, limit)
    gpus = gpu_groups(sizing, case.rollout_format(shape))
    items, shared = host.host_items(sizing, gpus), host.shared_memory_bytes(sizing)
    planned = sum(item.bytes for item in items) + shared
    return JobPlan(
        shape=shape,
        parameters=whole_parameters(shape),
        accelerator=case.accelerator.name,
        ranks=ranks,
        groups=groups,
        engine=make_engine(sizing),
        roles=roles(ranks),
        gpus=gpus,
        host=items,
        shared_memory_bytes=shared,
        disk=host.disk(case, shape, inspection),
        rollout_format=case.rollout_format(shape),
        training_format=case.training_format(shape),
        together=together(case.spec, ranks),
        push=plan_push(shape, case.rollout_format(shape), ranks, case.spec.weight_sync.bucket_bytes),
        notes=(*plan_notes(sizing), *limit_notes(case.spec, ranks, planned)),
    )


def _check_disk(plan: JobPlan, free_bytes: int | None) -> None:
    need = plan.disk.conversion_bytes
    if free_bytes is not None and need > free_bytes:
        text = f"a volume with {need / 1e9:.1f} GB free: {', '.join(f'{i.cause} {i.bytes / 1e9:.1f} GB' for i in plan.disk.conversion)}"
        raise PlanError([wrong("conversion.volume", f"{free_bytes / 1e9:.1f} GB free", text)])
