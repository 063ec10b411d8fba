"""Rules on the parallel layout that need no model shape. Megatron's own checks fire in the pods, hours later; these fire first."""

from collections.abc import Iterator
from math import lcm

from lprl_api.field_error import FieldError, wrong
from lprl_api.rule_case import Case, Rule, divisors

PARALLEL = ("tensor", "pipeline", "context", "expert", "expert_tensor")


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


def _world(case: Case) -> Iterator[FieldError]:
    topology, slots = case.spec.topology, case.gpus_per_node
    t = topology.trainer
    if topology.placement == "colocated":
        for side, nodes in (("trainer", t.nodes), ("rollout", topology.rollout.nodes)):
            if nodes is not None:
                yield wrong(f"topology.{side}.nodes", nodes, "nothing with placement colocated (topology.nodes counts), or placement split")
    count: int | str | None = topology.nodes if topology.placement == "colocated" else t.nodes
    if not isinstance(count, int):
        return
    ranks, path = count * slots, "topology.nodes" if topology.placement == "colocated" else "topology.trainer.nodes"
    need = lcm(model_parallel(case), slots) // slots
    dense, expert = t.tensor * t.pipeline * t.context, t.expert_tensor * t.expert * t.pipeline
    if ranks % dense:
        yield wrong(path, count, f"a multiple of {need}: {ranks} ranks are no multiple of tensor x pipeline x context = {dense}")
    if ranks % expert:
        yield wrong(path, count, f"a multiple of {need}: {ranks} ranks are no multiple of expertTensor x expert x pipeline = {expert}")


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
    """Each optimizer step needs at least one sample for every data-parallel rank."""
    topology, algorithm = case.spec.topology, case.spec.algorithm
    nodes = topology.nodes if topology.placement == "colocated" else topology.trainer.nodes
    if not isinstance(nodes, int):
        return
    t = topology.trainer
    ranks = nodes * case.gpus_per_node // (t.tensor * t.pipeline * t.context)
    size = algorithm.global_batch_size or algorithm.rollout_batch_size * algorithm.samples_per_prompt
    if ranks and size < ranks:
        yield wrong("algorithm.globalBatchSize", size, f"at least {ranks}, one sample per data-parallel rank; or fewer nodes")


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
    nodes = topology.nodes if topology.placement == "colocated" else rollout.nodes
    if isinstance(nodes, int) and size > slots and nodes * slots % size:
        need = f"a divisor of all {nodes * slots} GPUs, so that no GPU is left without an engine"
        yield wrong("topology.rollout.gpusPerEngine", size, need)


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
)
