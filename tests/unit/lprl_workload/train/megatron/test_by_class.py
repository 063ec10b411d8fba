"""Families that are built by their class and have a table for Megatron, or the reason why not."""

import pytest
import torch
from tests.unit.lprl_workload.train.megatron.meshes import numbered
from tests.unit.lprl_workload.train.megatron.test_mapping import loaded
from tests.zoo.tiny import tiny_config

from lprl_api.errors import UserError
from lprl_api.model.hf_config import ARCHITECTURES
from lprl_api.model.layouts.planned import planned_shape
from lprl_api.model.megatron import STAGED
from lprl_api.model.model_shape import ModelShape
from lprl_workload.hf.naming import Naming
from lprl_workload.train.megatron import parts
from lprl_workload.train.megatron.families import FAMILIES, family_of
from lprl_workload.train.megatron.mapping import Mapping
from lprl_workload.train.megatron.stages import Stages
from lprl_workload.train.mesh import TrainMesh

QWEN = Naming("model.language_model.", "lm_head.weight")
INSIDE = {"kimi_k25": Naming("language_model.model.", "language_model.lm_head.weight"), "qwen3_5": QWEN, "qwen3_5_moe": QWEN}


def shape_of(model_type: str) -> ModelShape:
    return planned_shape({**tiny_config(model_type, {"num_hidden_layers": 4}).to_dict(), "model_type": model_type})


def test_rules_know_every_table_and_no_other() -> None:
    assert {name for name in FAMILIES if name not in ARCHITECTURES} | {"kimi_k25"} == STAGED
    assert all(family_of(shape_of(name)).name in FAMILIES for name in STAGED)


@pytest.mark.parametrize("model_type", sorted(STAGED))
def test_every_element_of_a_checkpoint_is_owned_once_under_the_folders_name(model_type: str) -> None:
    mapping = Mapping(shape_of(model_type), TrainMesh(tp=2, pp=2, ep=2), Stages((3, 1)), naming=INSIDE.get(model_type))
    manifest = mapping.manifest()
    assert manifest.faults() == [] and [e.name for e in manifest.entries] == sorted(mapping.tensors)
    plain = numbered(mapping.shape)
    stored = {mapping.stored(name): tensor for name, tensor in plain.items()}
    assert set(stored) == set(mapping.tensors) and (stored.keys() == plain.keys()) == (model_type not in INSIDE)
    for rank in range(mapping.mesh.world):
        assert all((values >= 0).all() for values in loaded(mapping, rank, stored).values()), "nothing is left out"


def test_query_key_and_value_of_a_gated_delta_net_are_cut_by_heads_each() -> None:
    """They lie one below the other in one tensor: halves of it would be queries and keys here, values there."""
    mapping = Mapping(shape_of("qwen3_5_text"), TrainMesh(tp=2), Stages((4,)))
    checkpoint = numbered(mapping.shape)
    for name in ("in_proj_qkv", "conv1d"):
        whole = checkpoint[f"model.layers.0.linear_attn.{name}.weight"]
        assert len(whole) == 3 * 128, "four heads of 32 channels each"
        for rank in range(2):
            found = loaded(mapping, rank, checkpoint)[0, f"decoder.layers.0.self_attention.net.{name}.weight"]
            assert torch.equal(found, torch.cat([part.chunk(2)[rank] for part in whole.split(128)]))


@pytest.mark.parametrize(("rows", "values", "told"), [(7, 2, "7 rows are no query and key"), (8, 2, "3 rows cannot be cut into 2")])
def test_sections_that_cannot_be_cut_are_refused_by_the_tensors_name(rows: int, values: int, told: str) -> None:
    with pytest.raises(parts.UncutError, match=f"qkv: {told}"):
        parts.sections([parts.Tensor("qkv", (rows, 4))], 0, 2, values)


def test_a_family_without_a_table_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"Olmo3ForCausalLM: backends\.trainer megatron has no table of it"):
        family_of(shape_of("olmo3").model_copy(update={"architecture": "Olmo3ForCausalLM"}))
