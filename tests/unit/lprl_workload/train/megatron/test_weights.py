"""Loading and handing out: what is refused, and that a source yields BF16 under checkpoint names without other ranks."""

import re

import pytest
import torch
from tests.unit.lprl_workload.train.megatron.meshes import empty, numbered, shape_of
from torch import Tensor

from lprl_api.errors import UserError
from lprl_workload.sync.manifest import Shard
from lprl_workload.train.megatron.mapping import Mapping
from lprl_workload.train.megatron.stages import Stages
from lprl_workload.train.megatron.weights import PartsSource, load
from lprl_workload.train.mesh import TrainMesh

DOWN = "model.layers.0.mlp.down_proj.weight"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({DOWN: None}, f"1 tensors missing, such as {DOWN}"),
        ({DOWN: torch.zeros(2, 2)}, f"tensor {DOWN} has shape [2, 2], needs [4, 16]"),
        ({DOWN: torch.zeros(4, 16, dtype=torch.int8)}, f"tensor {DOWN} is int8"),
        ({"model.layers.0.mlp.side_proj.weight": torch.zeros(2, 2)}, "tensor model.layers.0.mlp.side_proj.weight is not in a Qwen3"),
    ],
    ids=["missing", "misshapen", "quantised", "unknown"],
)
def test_a_checkpoint_of_another_model_is_refused_by_the_tensors_name(change: dict[str, Tensor | None], told: str) -> None:
    mapping = Mapping(shape_of(), TrainMesh(tp=2), Stages((2,)))
    checkpoint = {name: tensor for name, tensor in (numbered(mapping.shape) | change).items() if tensor is not None}
    with pytest.raises(UserError, match=re.escape(told)):
        load(checkpoint.items(), mapping, 1, empty(mapping.held(1)))


def test_a_source_hands_out_what_its_rank_owns_in_the_order_asked_for() -> None:
    """Every rank by itself: together the checkpoint, rounded to BF16."""
    mapping = Mapping(shape_of("qwen3-moe", experts=4, vocab=70), TrainMesh(dp=2, tp=2, pp=2, ep=2), Stages((1, 1)))
    checkpoint = numbered(mapping.shape)
    again = {name: torch.zeros(tensor.shape, dtype=torch.bfloat16) for name, tensor in checkpoint.items()}
    names = sorted(checkpoint, reverse=True)
    for rank in range(mapping.mesh.world):
        parameters = empty(mapping.held(rank))
        load(checkpoint.items(), mapping, rank, parameters)
        shards = list(PartsSource(mapping, rank, parameters, torch.device("cpu")).shards(names))
        assert [s.name for s in shards] == sorted((s.name for s in shards), key=names.index)
        for shard in shards:
            add(again[shard.name], shard)
    assert all(torch.equal(again[name], tensor.to(torch.bfloat16)) for name, tensor in checkpoint.items())


def add(whole: Tensor, shard: Shard) -> None:
    """Added, not copied: what two ranks hand out is wrong."""
    assert shard.tensor.is_contiguous() and shard.tensor.dtype == torch.bfloat16
    whole[tuple(slice(a, a + n) for a, n in zip(shard.offset, shard.tensor.shape, strict=True))] += shard.tensor
