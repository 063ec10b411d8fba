"""The mapping's invariants on any mesh, and its parameters against what Megatron says of each."""

from math import prod

import pytest
import torch
from hypothesis import given, settings
from tests.unit.lprl_workload.train.megatron.meshes import empty, mappings, numbered, shape_of
from torch import Tensor

from lprl_api.model.checkpoint_tensors import checkpoint_tensors
from lprl_api.model.formats import Bf16, Int4Group
from lprl_api.spec.precision import Scope
from lprl_workload.quant.select import Selection
from lprl_workload.train.megatron.mapping import VOCAB_MULTIPLE, Mapping, quantised
from lprl_workload.train.megatron.parts import UncutError
from lprl_workload.train.megatron.stages import Stages
from lprl_workload.train.megatron.weights import load, read
from lprl_workload.train.mesh import TrainMesh

ANY = settings(max_examples=60, deadline=None)


def loaded(mapping: Mapping, rank: int, checkpoint: dict[str, Tensor]) -> dict[tuple[int, str], Tensor]:
    parameters = empty(mapping.held(rank))
    load(checkpoint.items(), mapping, rank, parameters)
    return parameters


@ANY
@given(mappings())
def test_every_element_of_a_checkpoint_is_owned_exactly_once(mapping: Mapping) -> None:
    manifest = mapping.manifest()
    assert manifest.faults() == [] and manifest.ranks == mapping.mesh.world
    assert [e.name for e in manifest.entries] == sorted(checkpoint_tensors(mapping.shape))


@ANY
@given(mappings())
def test_what_was_loaded_is_handed_out_again_as_it_was(mapping: Mapping) -> None:
    checkpoint = numbered(mapping.shape)
    again = {name: torch.zeros_like(tensor) for name, tensor in checkpoint.items()}
    for rank in range(mapping.mesh.world):
        parameters = loaded(mapping, rank, checkpoint)
        for (name, offset), (held, part) in mapping.owned(rank).items():
            index = tuple(slice(a, a + n) for a, n in zip(offset, part.shape, strict=True))
            again[name][index] += read(parameters[held.chunk, held.name], part)
    assert all(torch.equal(again[name], tensor) for name, tensor in checkpoint.items())


@ANY
@given(mappings())
def test_parts_fill_a_ranks_parameters_but_for_the_padding(mapping: Mapping) -> None:
    for rank in range(mapping.mesh.world):
        parameters = loaded(mapping, rank, numbered(mapping.shape))
        for held in mapping.held(rank):
            values, padding = parameters[held.chunk, held.name], held.cutting.padding
            assert (values[: len(values) - padding] >= 1).all() and (values[len(values) - padding :] == 0).all()


@ANY
@given(mappings())
def test_of_ranks_that_hold_the_same_one_keeps_each_parameter_and_they_share_evenly(mapping: Mapping) -> None:
    keepers = [mapping.keepers(rank) for rank in range(mapping.mesh.world)]
    for rank, mine in enumerate(keepers):
        held = mapping.held(rank)
        assert mine.keys() == {one.key for one in held}
        for of_experts in (False, True):
            sizes = {one.key: prod(one.cutting.shape) for one in held if one.of_experts == of_experts}
            replicas = mapping.mesh.replicas(rank, of_experts)
            assert rank in replicas and {mine[key] for key in sizes} <= set(replicas)
            assert all(keepers[other][key] == mine[key] for other in replicas for key in sizes)
            kept = [sum(size for key, size in sizes.items() if mine[key] == other) for other in replicas]
            assert max(kept) - min(kept) <= max(sizes.values(), default=0)


@ANY
@given(mappings())
def test_a_rank_keeps_what_it_hands_out(mapping: Mapping) -> None:
    for rank in range(mapping.mesh.world):
        keepers = mapping.keepers(rank)
        assert all(keepers[held.key] == rank for held, _ in mapping.owned(rank).values())


def by_groups(checkpoint: dict[str, Tensor], kv_heads: int, what: str = "weight") -> Tensor:
    """Megatron's order: the queries of a group, its key, its value, then the next group."""
    q, k, v = (checkpoint[f"model.layers.0.self_attn.{name}_proj.{what}"] for name in "qkv")
    return torch.cat([torch.cat([a, b, c]) for a, b, c in zip(q.chunk(kv_heads), k.chunk(kv_heads), v.chunk(kv_heads), strict=True)])


@pytest.mark.parametrize(("heads", "kv_heads", "tp"), [(4, 2, 1), (4, 2, 2), (8, 4, 2), (8, 1, 2), (8, 2, 4), (4, 1, 4), (4, 4, 4)])
def test_query_key_and_value_are_one_matrix_by_group_cut_in_equal_rows(heads: int, kv_heads: int, tp: int) -> None:
    """Also through a group, where there are more ranks than groups: Megatron puts the rows together again by an all-gather."""
    mapping = Mapping(shape_of("qwen2", heads=heads, kv_heads=kv_heads), TrainMesh(tp=tp), Stages((2,)))
    checkpoint = numbered(mapping.shape)
    for rank in range(tp):
        parameters = loaded(mapping, rank, checkpoint)
        for what in ("weight", "bias"):
            found = parameters[0, f"decoder.layers.0.self_attention.linear_qkv.{what}"]
            assert torch.equal(found, by_groups(checkpoint, kv_heads, what).chunk(tp)[rank])


def test_gate_lies_above_up_on_every_tensor_rank() -> None:
    mapping = Mapping(shape_of(), TrainMesh(tp=2), Stages((2,)))
    checkpoint = numbered(mapping.shape)
    gate, up, down = (checkpoint[f"model.layers.1.mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
    for rank in range(2):
        parameters = loaded(mapping, rank, checkpoint)
        above = torch.cat([gate.chunk(2)[rank], up.chunk(2)[rank]])
        assert torch.equal(parameters[0, "decoder.layers.1.mlp.linear_fc1.weight"], above)
        assert torch.equal(parameters[0, "decoder.layers.1.mlp.linear_fc2.weight"], down.chunk(2, dim=1)[rank])


def test_the_vocabulary_is_padded_for_all_tensor_ranks_together() -> None:
    mapping = Mapping(shape_of(vocab=70), TrainMesh(tp=4), Stages((2,)))
    checkpoint = numbered(mapping.shape)
    found = [loaded(mapping, rank, checkpoint)[0, "embedding.word_embeddings.weight"] for rank in range(4)]
    assert {len(part) for part in found} == {VOCAB_MULTIPLE}
    whole = torch.cat(found)
    assert torch.equal(whole[:70], checkpoint["model.embed_tokens.weight"]) and not whole[70:].any()


def test_experts_go_over_the_stages_ranks_and_tensor_ranks_of_their_own() -> None:
    """2 data x 2 tensor ranks, experts over 2 x 2: Megatron's grid, expert-tensor index fastest."""
    mapping = Mapping(shape_of("qwen3-moe", experts=4), TrainMesh(dp=2, tp=2, ep=2, etp=2), Stages((2,)))
    checkpoint = numbered(mapping.shape)
    for rank, (expert, half) in enumerate([(0, 0), (0, 1), (2, 0), (2, 1)]):
        parameters = loaded(mapping, rank, checkpoint)
        for local in range(2):
            down = checkpoint[f"model.layers.0.mlp.experts.{expert + local}.down_proj.weight"]
            found = parameters[0, f"decoder.layers.0.mlp.experts.local_experts.{local}.linear_fc2.weight"]
            assert torch.equal(found, down.chunk(2, dim=1)[half])


def test_a_latent_query_is_optional_and_its_down_projections_are_whole_with_transformer_engine() -> None:
    shape = shape_of("deepseek-v3", kv_heads=4, experts=2)
    plain = shape.model_copy(update={"mla": shape.mla.model_copy(update={"q_lora_rank": None}) if shape.mla else None})
    found = [
        {h.name: h.cutting.shape for h in Mapping(s, TrainMesh(tp=2), Stages((2,)), m).held(1)}
        for s, m in ((shape, "local"), (shape, "te"), (plain, "te"))
    ]
    down = "decoder.layers.1.self_attention.linear_kv_down_proj.weight"
    assert found[0][down] == (4, 4) and found[1][down] == (8, 4)
    assert "decoder.layers.1.self_attention.linear_q_up_proj.layer_norm_weight" in found[1]
    assert "decoder.layers.1.self_attention.linear_q_proj.weight" in found[2] and not any("linear_q_up" in name for name in found[2])


def test_a_tied_head_is_held_by_the_last_stage_and_owned_once() -> None:
    mapping = Mapping(shape_of(tied_embeddings=True), TrainMesh(pp=2), Stages((1, 1)))
    names = [{h.name for h in mapping.held(rank)} for rank in range(2)]
    assert "embedding.word_embeddings.weight" in names[0] and "output_layer.weight" in names[1]
    (entry,) = (e for e in mapping.manifest().entries if e.name == "model.embed_tokens.weight")
    assert len(entry.pieces) == 1
    alone = Mapping(shape_of(tied_embeddings=True), TrainMesh(), Stages((2,)))
    assert "output_layer.weight" not in {h.name for h in alone.held(0)}


def test_transformer_engine_keeps_norms_and_experts_under_names_of_its_own() -> None:
    shape = shape_of("qwen3-moe", experts=2)
    names = {h.name.removeprefix("decoder.layers.0.") for h in Mapping(shape, TrainMesh(), Stages((2,)), "te").held(0)}
    assert {"self_attention.linear_qkv.layer_norm_weight", "pre_mlp_layernorm.weight", "mlp.experts.linear_fc1.weight1"} <= names
    dense = {h.name for h in Mapping(shape_of(), TrainMesh(), Stages((2,)), "te").held(0)}
    assert "decoder.layers.0.mlp.linear_fc1.layer_norm_weight" in dense and "decoder.layers.0.pre_mlp_layernorm.weight" not in dense


@pytest.mark.parametrize(
    ("mesh", "changes", "told"),
    [
        (TrainMesh(tp=4), {"heads": 12, "kv_heads": 6}, "q_proj.weight: 6 query groups are neither"),
        (TrainMesh(tp=3), {"heads": 3, "kv_heads": 3}, "o_proj.weight|gate_proj.weight: 16 rows cannot be cut into 3"),
        (TrainMesh(dp=3, ep=3), {"family": "qwen3-moe", "experts": 4}, "experts: 4 experts cannot be cut into 3"),
    ],
    ids=["groups", "rows", "experts"],
)  # fmt: skip
def test_what_cannot_be_cut_is_refused_by_the_tensors_name(mesh: TrainMesh, changes: dict[str, object], told: str) -> None:
    with pytest.raises(UncutError, match=told):
        Mapping(shape_of(**changes), mesh, Stages((2,))).held(0)  # type: ignore[arg-type]


def test_what_is_quantised_is_asked_of_the_checkpoints_names() -> None:
    mapping = Mapping(
        shape_of(
            "qwen3-moe",
            experts=2,
            hidden=32,
        ),
        TrainMesh(),
        Stages((2,)),
    )
    experts = Int4Group(group_size=32, scope=Scope.ROUTED_EXPERTS, exclude_modules=("*.experts.*.down_proj",))
    found = {
        name.removeprefix("decoder.layers.0.") for _, name in quantised(mapping, 0, Selection(experts, mapping.shape)) if ".0." in name
    }
    assert "mlp.experts.local_experts.1.linear_fc1.weight" in found
    assert not any("linear_fc2" in name or "attention" in name or "router" in name for name in found)
    assert not quantised(mapping, 0, Selection(Bf16(), mapping.shape))


def test_halves_of_one_parameter_are_not_treated_apart() -> None:
    mapping = Mapping(shape_of(hidden=32), TrainMesh(), Stages((2,)))
    apart = Int4Group(group_size=32, scope=Scope.ALL_LINEAR, exclude_modules=("*.up_proj", "*.down_proj", "*.self_attn.*"))
    with pytest.raises(ValueError, match=r"linear_fc1\.weight: some of its tensors are quantised and some are not"):
        quantised(mapping, 0, Selection(apart, mapping.shape))
