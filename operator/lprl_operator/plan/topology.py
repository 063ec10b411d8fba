"""Nodes x GPUs to roles and ranks, for colocated and split placement."""

from collections.abc import Iterator

from lprl_api.derived import effective
from lprl_api.derived.spans import spans, told, whole_nodes
from lprl_api.rules.case import Case
from lprl_api.rules.layout import engine_step, node_step
from lprl_api.rules.queueing import groups_of
from lprl_api.spec.job import LowPrecisionRLJobSpec
from lprl_api.wire.runconfig import Ranks
from lprl_operator.plan.types import Role, Together

MAX_NODES = 1024
Nodes = tuple[int, int]
"""Trainer nodes, and nodes of engines alone."""


def candidates(case: Case) -> Iterator[Nodes]:
    """Yield the possible layouts, fewest nodes first: one when the spec fixes the nodes, else growing ones."""
    topology = case.spec.topology
    if topology.placement == "colocated":
        step = node_step(case)
        counts = [topology.nodes] if isinstance(topology.nodes, int) else range(step, MAX_NODES + 1, step)
        for nodes in counts:
            yield nodes, 0
        return
    trainer, rollout = effective.side_nodes(topology)
    step, engines = node_step(case), engine_step(case)
    least = least_engine_nodes(case)
    if isinstance(topology.nodes, int) and trainer is None and rollout is None:
        shares = ((t, topology.nodes - t) for t in range(step, min(topology.nodes, MAX_NODES + 1), step))
        pairs = ((t, r) for t, r in shares if r % engines == 0 and r >= least)
    elif rollout is None and least > MAX_NODES * engines:
        return
    else:
        sizes = [trainer] if trainer is not None else range(step, MAX_NODES + 1, step)
        pairs = ((t, rollout or least) for t in sizes)
    yield from pairs


def least_engine_nodes(case: Case) -> int:
    """Return the fewest nodes with an engine more than evaluate beside training."""
    evaluating = case.spec.evaluation.engines if case.spec.evaluation is not None else 0
    devices, step = (evaluating + 1) * case.spec.topology.rollout.gpus_per_engine, engine_step(case)
    return -(-devices // (case.gpus_per_node * step)) * step


def data_parallel(case: Case, trainer_nodes: int) -> int:
    """Return the replicas of the trained model on so many nodes."""
    t = case.spec.topology.trainer
    return max(1, trainer_nodes * case.gpus_per_node // (t.tensor * t.pipeline * t.context))


def ranks_of(case: Case, nodes: Nodes) -> Ranks:
    """Return a layout."""
    trainer_nodes, rollout_nodes = nodes
    topology, slots = case.spec.topology, case.gpus_per_node
    colocated = topology.placement == "colocated"
    world = trainer_nodes * slots
    served = world if colocated else rollout_nodes * slots
    return Ranks(
        placement=topology.placement,
        accelerator=topology.accelerator,
        nodes=trainer_nodes + rollout_nodes,
        slots_per_node=slots,
        trainer_ranks=world,
        data_parallel=data_parallel(case, trainer_nodes),
        engines=max(1, served // topology.rollout.gpus_per_engine),
        slots_per_engine=topology.rollout.gpus_per_engine,
        trainer_nodes=trainer_nodes,
        rollout_nodes=rollout_nodes,
    )


def together(spec: LowPrecisionRLJobSpec, ranks: Ranks) -> Together | None:
    """Return which trainer nodes belong together, and what a queue is asked for."""
    trainer, slots, near = spec.topology.trainer, ranks.slots_per_node, spec.pod_template.topology
    nodes = ranks.trainer_nodes
    if near is None and (nodes == 1 or not spans(trainer, slots)):
        return None
    found = Together(nodes=whole_nodes(trainer, slots), spans=told(trainer, slots))
    if near is None:
        return found
    count = groups_of(nodes, near.group_nodes)
    return found.model_copy(update={"groups": count, "level": near.level, "required": near.required is not None})


def roles(ranks: Ranks) -> tuple[Role, ...]:
    """Return the pods of the run: a head without GPUs, and workers."""
    head = Role(name="head", nodes=1, slots_per_node=0, description="Ray head and driver, no GPU")
    unit = "processes" if ranks.accelerator == "cpu" else f"{ranks.accelerator} GPUs"
    if ranks.placement == "colocated":
        text = f"{ranks.slots_per_node} {unit} each: trainer and rollout engines in turn"
        return (head, Role(name="workers", nodes=ranks.nodes, slots_per_node=ranks.slots_per_node, description=text))
    trainer = Role(
        name="trainer", nodes=ranks.trainer_nodes, slots_per_node=ranks.slots_per_node, description=f"{ranks.slots_per_node} {unit} each"
    )
    rollout = Role(
        name="rollout", nodes=ranks.rollout_nodes, slots_per_node=ranks.slots_per_node, description=f"{ranks.slots_per_node} {unit} each"
    )
    return (head, trainer, rollout)
