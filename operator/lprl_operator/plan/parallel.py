"""Process groups of the trainer and the weights each pipeline stage holds."""

from dataclasses import dataclass
from functools import lru_cache

from lprl_api.derived.stages import stage_layers
from lprl_api.model.formats import WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.model.weight import LINEAR_KINDS, Weight
from lprl_api.model.weights import embedding_weight, head_weights, layer_weights, outside_weights, selects
from lprl_api.spec.topology import TrainerLayout
from lprl_operator.plan.types import Groups


def make_groups(shape: ModelShape, trainer: TrainerLayout, world: int) -> Groups:
    """Return the group sizes of `world` trainer ranks; the layout is legal (rules)."""
    layers = stage_layers(shape.layers, trainer.pipeline, trainer.last_stage_layers)
    assert layers is not None, "checked by rules_shape"
    return Groups(
        tensor=trainer.tensor,
        pipeline=trainer.pipeline,
        context=trainer.context,
        expert=trainer.expert,
        expert_tensor=trainer.expert_tensor,
        data_parallel=world // (trainer.tensor * trainer.pipeline * trainer.context),
        expert_data_parallel=world // (trainer.expert_tensor * trainer.expert * trainer.pipeline),
        stage_layers=layers,
    )


@dataclass(frozen=True)
class StageWeights:
    """Parameters one rank of a pipeline stage holds."""

    dense: int
    """Outside routed experts: a tensor-parallel share, replicated parts whole."""
    expert: int
    """Of routed experts: this rank's experts."""
    linear: int
    """Of the above, in linear layers (what FP8 training casts)."""
    selected: int
    """Of the above, what the training format quantises."""
    largest: int
    """Elements of the largest single weight of a layer, gathered over all ranks."""

    @property
    def total(self) -> int:
        """All parameters of the rank."""
        return self.dense + self.expert


def _share(weight: Weight, groups: Groups) -> int:
    """Parameters of one weight on one rank (ceil; the vocabulary is padded)."""
    if weight.kind == "expert":
        return -(-weight.parameters // (groups.expert * groups.expert_tensor))
    return weight.parameters if weight.sharding == "replicated" else -(-weight.parameters // groups.tensor)


def stage_weights(shape: ModelShape, groups: Groups, stage: int, fmt: WeightFormat) -> StageWeights:
    """Return what one rank of pipeline stage `stage` holds; a tied head has a copy of its own when pipelined."""
    # However many replicas there are, each holds the same: layouts of more nodes ask again.
    return _stage_weights(shape, groups.model_copy(update={"data_parallel": 1, "expert_data_parallel": 1}), stage, fmt)


@lru_cache(64)
def _stage_weights(shape: ModelShape, groups: Groups, stage: int, fmt: WeightFormat) -> StageWeights:
    first = sum(groups.stage_layers[:stage])
    held = [(f"model.layers.{n}.{w.module}", w) for n in range(first, first + groups.stage_layers[stage]) for w in layer_weights(shape, n)]
    last = stage == groups.pipeline - 1
    if stage == 0 or (last and shape.tied_embeddings):
        held.append(("model.embed_tokens", embedding_weight(shape)))
    if stage == 0:
        held += [(w.module, w) for w in outside_weights(shape)]
    if last:
        held += [(w.module, w) for w in head_weights(shape)]
    return StageWeights(
        dense=sum(_share(w, groups) for _, w in held if w.kind != "expert"),
        expert=sum(_share(w, groups) for _, w in held if w.kind == "expert"),
        linear=sum(_share(w, groups) for _, w in held if w.kind in LINEAR_KINDS),
        selected=sum(_share(w, groups) for name, w in held if selects(fmt, name, w)),
        largest=max(w.rows * w.cols for _, w in held),
    )
