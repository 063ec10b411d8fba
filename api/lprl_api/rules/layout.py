"""Rules on the parallel layout that need no model shape. Megatron's own checks fire in the pods, hours later; these fire first."""

from collections.abc import Iterator
from math import lcm
from typing import Literal

from lprl_api.derived import effective
from lprl_api.field_error import FieldError, wrong
from lprl_api.rules.case import Case, Rule, divisors

PARALLEL = ("tensor", "pipeline", "virtual_pipeline", "context", "expert", "expert_tensor")


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


def _torch_parallel(name: str) -> Rule:
    """Return the rule of one size, so that a gap in one hides no other."""

    def rule(case: Case) -> Iterator[FieldError]:
        size = getattr(case.spec.topology.trainer, name)
        if not case.megatron and size != 1:
            need = "1: the torch trainer is data parallel only; or backends.trainer megatron"
            yield wrong(f"topology.trainer.{_camel(name)}", size, need)

    return rule


def _torch_trainer(case: Case) -> Iterator[FieldError]:
    if case.megatron:
        return
    trainer = case.spec.topology.trainer
    if trainer.deep_ep:
        yield wrong("topology.trainer.deepEp", True, "false, or backends.trainer megatron")
    if trainer.last_stage_layers is not None:
        yield wrong("topology.trainer.lastStageLayers", trainer.last_stage_layers, "nothing, or backends.trainer megatron")
    if trainer.recompute == "selective":
        yield wrong(
            "topology.trainer.recompute",
            "selective",
            "none or full: the torch trainer recomputes whole layers; or backends.trainer megatron",
        )
    if trainer.recompute_layers != 1:
        yield wrong("topology.trainer.recomputeLayers", trainer.recompute_layers, "1 with the torch trainer, or backends.trainer megatron")
    if trainer.hidden_dropout:
        yield wrong("topology.trainer.hiddenDropout", trainer.hidden_dropout, "0 with the torch trainer, or backends.trainer megatron")


def _torch_rollout(case: Case) -> Iterator[FieldError]:
    if case.sglang:
        return
    rollout = case.spec.topology.rollout
    for name, size in (("gpusPerEngine", rollout.gpus_per_engine), ("tensor", rollout.tensor or 1), ("expert", rollout.expert)):
        if size != 1:
            yield wrong(f"topology.rollout.{name}", size, "1: the torch engine runs in one process; or backends.rollout sglang")


def _sequence_parallel(case: Case) -> Iterator[FieldError]:
    trainer = case.spec.topology.trainer
    if trainer.sequence_parallel and trainer.tensor == 1:
        yield wrong("topology.trainer.sequenceParallel", True, "false with tensor 1, or tensor above 1")
    if trainer.sequence_parallel and trainer.max_tokens_per_gpu % trainer.tensor:
        need = f"a multiple of tensor ({trainer.tensor}) with sequenceParallel"
        yield wrong("topology.trainer.maxTokensPerGpu", trainer.max_tokens_per_gpu, need)
    if trainer.context > 1 and trainer.max_tokens_per_gpu % 2:
        yield wrong("topology.trainer.maxTokensPerGpu", trainer.max_tokens_per_gpu, "an even number with context above 1")


def _pipeline(case: Case) -> Iterator[FieldError]:
    trainer = case.spec.topology.trainer
    if trainer.last_stage_layers is not None and trainer.pipeline == 1:
        yield wrong("topology.trainer.lastStageLayers", trainer.last_stage_layers, "nothing with pipeline 1, or pipeline above 1")
    if trainer.deep_ep and trainer.expert_tensor * trainer.expert < 2:
        yield wrong("topology.trainer.deepEp", True, "false with expert 1, or expert above 1")


def model_parallel(case: Case) -> int:
    """Return the ranks of one copy of the model; the trainer's world is a multiple of it."""
    t = case.spec.topology.trainer
    return lcm(t.tensor * t.pipeline * t.context, t.expert_tensor * t.expert * t.pipeline)


def node_step(case: Case) -> int:
    """Return the nodes a trainer grows by: whole copies of the model on whole nodes, and whole groups of podTemplate.topology."""
    slots, near = case.gpus_per_node, case.spec.pod_template.topology
    step = lcm(lcm(model_parallel(case), slots) // slots, (near.group_nodes if near is not None else None) or 1)
    return lcm(step, engine_step(case)) if case.spec.topology.placement == "colocated" else step


def engine_step(case: Case) -> int:
    """Return the nodes engines grow by."""
    return -(-case.spec.topology.rollout.gpus_per_engine // case.gpus_per_node)


def _written(case: Case, side: Literal["trainer", "rollout"]) -> str:
    """Return the field that decides the nodes of a side."""
    topology = case.spec.topology
    own = topology.trainer.nodes if side == "trainer" else topology.rollout.nodes
    return f"topology.{side}.nodes" if topology.placement == "split" and own is not None else "topology.nodes"


def _world(case: Case) -> Iterator[FieldError]:
    topology, slots = case.spec.topology, case.gpus_per_node
    t = topology.trainer
    if topology.placement == "colocated":
        for side, nodes in (("trainer", t.nodes), ("rollout", topology.rollout.nodes)):
            if nodes is not None:
                yield wrong(f"topology.{side}.nodes", nodes, "nothing with placement colocated (topology.nodes counts), or placement split")
    count, _ = effective.side_nodes(topology)
    if count is None or count < 1:
        return
    ranks, path, other = count * slots, _written(case, "trainer"), topology.rollout.nodes
    got = count if path == "topology.trainer.nodes" or topology.placement == "colocated" else f"{topology.nodes}, {count} for the trainer"
    need = lcm(model_parallel(case), slots) // slots
    what = f"a multiple of {need}" if got == count else f"{other} (rollout.nodes) plus a multiple of {need}"
    dense, expert = t.tensor * t.pipeline * t.context, t.expert_tensor * t.expert * t.pipeline
    if ranks % dense:
        yield wrong(path, got, f"{what}: {ranks} ranks are no multiple of tensor x pipeline x context = {dense}")
    if ranks % expert:
        yield wrong(path, got, f"{what}: {ranks} ranks are no multiple of expertTensor x expert x pipeline = {expert}")


def _split_nodes(case: Case) -> Iterator[FieldError]:
    topology = case.spec.topology
    trainer, rollout = topology.trainer.nodes, topology.rollout.nodes
    if topology.placement != "split" or not isinstance(topology.nodes, int):
        return
    if topology.nodes < 2:
        yield wrong("topology.nodes", topology.nodes, "at least 2 with placement split, or placement colocated")
    elif trainer is not None and rollout is not None and trainer + rollout != topology.nodes:
        yield wrong("topology.nodes", topology.nodes, f"{trainer + rollout} = trainer.nodes + rollout.nodes, or auto")
    elif (trainer or rollout or 0) >= topology.nodes:
        yield wrong(
            "topology.nodes", topology.nodes, f"at least {(trainer or rollout or 0) + 1}: one side alone takes {trainer or rollout}"
        )


def _data_parallel(case: Case) -> Iterator[FieldError]:
    """Each optimizer step needs at least one sample for every data-parallel rank, also of the fewest nodes a plan can choose."""
    algorithm, t = case.spec.algorithm, case.spec.topology.trainer
    nodes, _ = effective.side_nodes(case.spec.topology)
    ranks = (nodes if nodes is not None else node_step(case)) * case.gpus_per_node // (t.tensor * t.pipeline * t.context)
    size = effective.global_batch_size(algorithm)
    if size < ranks:
        got = size if algorithm.global_batch_size is not None else f"{size} (rolloutBatchSize x samplesPerPrompt)"
        fewer = "fewer nodes" if nodes is not None and nodes > node_step(case) else "fewer GPUs a node (gpusPerNode)"
        yield wrong("algorithm.globalBatchSize", got, f"at least {ranks}, one sample per data-parallel rank; or {fewer}")


def _engines(case: Case) -> Iterator[FieldError]:
    topology, slots, rollout = case.spec.topology, case.gpus_per_node, case.spec.topology.rollout
    size, tensor = rollout.gpus_per_engine, case.engine_tensor
    if size < slots and slots % size:
        yield wrong("topology.rollout.gpusPerEngine", size, f"a divisor of the {slots} GPUs of a node ({divisors(slots)})")
    if size > slots and size % slots:
        yield wrong("topology.rollout.gpusPerEngine", size, f"a multiple of the {slots} GPUs of a node")
    if size % tensor:
        yield wrong("topology.rollout.tensor", tensor, f"a divisor of gpusPerEngine ({size}): {divisors(size)}")
    elif tensor % rollout.expert:
        yield wrong("topology.rollout.expert", rollout.expert, f"a divisor of the engine's tensor size ({tensor}): {divisors(tensor)}")
    _, nodes = effective.side_nodes(topology)
    if nodes is not None and nodes > 0 and size > slots and nodes * slots % size:
        need = f"a divisor of the {nodes * slots} GPUs of its {nodes} nodes ({_written(case, 'rollout')}): no GPU without an engine"
        yield wrong("topology.rollout.gpusPerEngine", size, need)


def _evaluation_engines(case: Case) -> Iterator[FieldError]:
    """Engines that evaluate beside training leave others to generate: `auto` plans for that, written nodes have to have room."""
    evaluation, topology = case.spec.evaluation, case.spec.topology
    if evaluation is None or not evaluation.engines:
        return
    if topology.placement == "colocated":
        need = "0 with placement colocated, where engines sleep while the trainer works; or topology.placement split"
        yield wrong("evaluation.engines", evaluation.engines, need)
        return
    nodes, field = effective.side_nodes(topology)[1], _written(case, "rollout")
    if nodes is None and isinstance(topology.nodes, int):
        nodes = topology.nodes - node_step(case)
    engines = None if nodes is None else nodes * case.gpus_per_node // topology.rollout.gpus_per_engine
    if engines is not None and 0 < engines <= evaluation.engines:
        need = f"less than the engines there are, {engines}: others generate meanwhile; or more {field}"
        yield wrong("evaluation.engines", evaluation.engines, need)


RULES: tuple[Rule, ...] = (
    *map(_torch_parallel, PARALLEL),
    _torch_trainer,
    _torch_rollout,
    _sequence_parallel,
    _pipeline,
    _world,
    _split_nodes,
    _data_parallel,
    _engines,
    _evaluation_engines,
)
