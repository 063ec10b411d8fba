"""Rules on the layout against the model's dimensions (Megatron's and the engines' divisibility)."""

from collections.abc import Iterator

from lprl_api.derived.stages import stage_layers
from lprl_api.field_error import FieldError, wrong
from lprl_api.model.formats import Bf16, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.model.weight import Weight
from lprl_api.model.weights import layer_weights, selects
from lprl_api.rules.case import Case, Rule, divisors
from lprl_api.rules.servable import engine_tensor_path


def _moe_sizes(case: Case) -> Iterator[FieldError]:
    shape, topology = case.shape, case.spec.topology
    if shape is None:
        return
    for path, size in (("trainer.expert", topology.trainer.expert), ("rollout.expert", topology.rollout.expert)):
        if size == 1:
            continue
        if shape.moe is None:
            yield wrong(f"topology.{path}", size, f"1: {shape.architecture} has no experts")
        elif shape.moe.experts % size:
            yield wrong(f"topology.{path}", size, f"a divisor of the {shape.moe.experts} experts: {divisors(shape.moe.experts)}")
    trainer = topology.trainer
    if shape.moe is None and trainer.expert_tensor != 1:
        yield wrong("topology.trainer.expertTensor", trainer.expert_tensor, f"1: {shape.architecture} has no experts")
    if shape.moe is not None and trainer.tensor > 1 and not trainer.sequence_parallel:
        need = "true: Megatron trains experts with tensor above 1 only with sequence parallelism"
        yield wrong("topology.trainer.sequenceParallel", False, need)


def _heads(case: Case) -> Iterator[FieldError]:
    if case.shape is None:
        return
    sides = (("topology.trainer.tensor", case.spec.topology.trainer.tensor), (engine_tensor_path(case), case.engine_tensor))
    for path, size in sides:
        if case.shape.heads % size:
            yield wrong(path, size, f"a divisor of the {case.shape.heads} attention heads: {divisors(case.shape.heads)}")
        elif case.shape.mla is None and case.shape.kv_heads % size and size % case.shape.kv_heads:
            yield wrong(path, size, f"a divisor or a multiple of the {case.shape.kv_heads} KV heads")


def fitting_last_stages(layers: int, pipeline: int) -> list[int]:
    """Return the sizes of a last stage that is no longer than the others, longest first."""
    each = -(-layers // pipeline)
    fits = [layers - (pipeline - 1) * size for size in range(each, layers) if layers - (pipeline - 1) * size > 0]
    return fits[:4]


def _pipeline(case: Case) -> Iterator[FieldError]:
    shape, trainer = case.shape, case.spec.topology.trainer
    if shape is None or trainer.pipeline == 1:
        return
    if trainer.pipeline > shape.layers:
        yield wrong("topology.trainer.pipeline", trainer.pipeline, f"at most the {shape.layers} layers")
    elif stage_layers(shape.layers, trainer.pipeline, trainer.last_stage_layers) is None:
        options = ", ".join(map(str, fitting_last_stages(shape.layers, trainer.pipeline)))
        even = [p for p in range(1, shape.layers + 1) if shape.layers % p == 0][:8]
        change = f"pipeline {trainer.pipeline} with lastStageLayers {options}" if options else "a smaller pipeline"
        need = f"{shape.layers} layers in equal stages apart from the last: {change}; or pipeline one of {', '.join(map(str, even))}"
        path = "lastStageLayers" if trainer.last_stage_layers is not None else "pipeline"
        yield wrong(f"topology.trainer.{path}", trainer.last_stage_layers or trainer.pipeline, need)


def _sharded(shape: ModelShape) -> Iterator[Weight]:
    """One weight of each kind: of the first dense and of the first expert layer."""
    seen: set[str] = set()
    layers = {0, shape.moe.dense_layers if shape.moe else 0} if shape.layout is None else set(range(shape.layers))
    for layer in sorted(layer for layer in layers if layer < shape.layers):
        for weight in layer_weights(shape, layer):
            if weight.module not in seen and weight.kind in ("attention", "mlp", "shared-expert", "expert"):
                seen.add(weight.module)
                yield weight


def _trainer_dims(case: Case) -> Iterator[FieldError]:
    if case.shape is None or not case.megatron:
        return
    trainer = case.spec.topology.trainer
    fmt = case.training_format(case.shape)
    dense, experts = _by_expert(case.shape)
    yield from _shards(case.shape, dense, "topology.trainer.tensor", trainer.tensor, fmt)
    yield from _shards(case.shape, experts, "topology.trainer.expertTensor", trainer.expert_tensor, fmt)


def _engine_dims(case: Case) -> Iterator[FieldError]:
    """Whole shards on every rank of an engine; what its kernels make of them is rules_servable's."""
    if case.shape is None or not case.sglang:
        return
    tensor = case.engine_tensor
    dense, experts = _by_expert(case.shape)
    yield from _shards(case.shape, dense, engine_tensor_path(case), tensor, Bf16())
    # An engine splits its tensor group into expert groups; what is left shards each expert.
    share = tensor // case.spec.topology.rollout.expert
    bad = next((w for w in experts if not _splits(case.shape, w, share, Bf16())), None) if share > 1 else None
    if bad is not None:
        fits = [e for e in range(1, tensor + 1) if tensor % e == 0 and all(_splits(case.shape, w, tensor // e, Bf16()) for w in experts)]
        need = f"one of {', '.join(map(str, fits))}: {bad.module} cannot split its {_whole(bad)} channels over {share} ranks"
        yield wrong("topology.rollout.expert", case.spec.topology.rollout.expert, need)


def _by_expert(shape: ModelShape) -> tuple[list[Weight], list[Weight]]:
    weights = list(_sharded(shape))
    return [w for w in weights if w.kind != "expert"], [w for w in weights if w.kind == "expert"]


def _shards(shape: ModelShape, weights: list[Weight], path: str, size: int, fmt: WeightFormat) -> Iterator[FieldError]:
    """Check the sharded dimension of each weight: whole shards, and whole blocks or groups inside a shard."""
    if size == 1 or shape.heads % size:
        return  # the heads have an error of their own
    bad = next((w for w in weights if not _splits(shape, w, size, fmt)), None)
    if bad is not None:
        unit = _unit(shape, bad, fmt)
        blocks = f" in multiples of {unit} ({fmt.kind})" if unit > 1 else ""
        fits = [d for d in range(1, size) if shape.heads % d == 0 and all(_splits(shape, w, d, fmt) for w in weights)]
        need = f"{' or '.join(map(str, fits))}: {bad.module} cannot split its {_whole(bad)} channels over {size} ranks{blocks}"
        yield wrong(path, size, need)


def _whole(weight: Weight) -> int:
    """The dimension a tensor-parallel group shards."""
    return weight.rows if weight.sharding == "column" else weight.cols


def _splits(shape: ModelShape, weight: Weight, size: int, fmt: WeightFormat) -> bool:
    if weight.sharding not in ("column", "row"):
        return True
    if weight.module.endswith(("k_proj", "v_proj")) and shape.kv_heads < size:
        return True  # key and value heads are replicated when there are fewer than ranks
    return _whole(weight) % size == 0 and (_whole(weight) // size) % _unit(shape, weight, fmt) == 0


def _unit(shape: ModelShape, weight: Weight, fmt: WeightFormat) -> int:
    layer = shape.moe.dense_layers if shape.moe and weight.kind in ("expert", "shared-expert") else 0
    taken = selects(fmt, f"model.layers.{layer}.{weight.module}", weight)
    return fmt.unit[0 if weight.sharding == "column" else 1] if taken else 1


RULES: tuple[Rule, ...] = (_moe_sizes, _heads, _pipeline, _trainer_dims, _engine_dims)
