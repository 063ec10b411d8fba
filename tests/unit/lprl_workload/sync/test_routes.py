"""Routes are pure and complete: each invariant of sync/routes.py, on any manifest."""

from itertools import pairwise
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.model.model_shape import ModelShape, Moe
from lprl_api.spec.precision import Scope
from lprl_fixtures.pushes import Mesh, mesh_manifest
from lprl_workload.io.dtypes import DTYPE_NAMES
from lprl_workload.quant.scheme import quantize
from lprl_workload.quant.select import Selection
from lprl_workload.quant.specs import served_specs, spec_bytes
from lprl_workload.sync.manifest import Entry, Piece, ServedAs, WeightManifest
from lprl_workload.sync.routes import EngineLayout, Routes, Target, audiences, route

SHAPE = ModelShape(
    architecture="Qwen3MoeForCausalLM", family="qwen3-moe", layers=4, hidden=64, heads=2, kv_heads=2, head_dim=32, ffn=96, vocab=50,
    tied_embeddings=False, moe=Moe(experts=4, experts_per_token=2, expert_ffn=64),
)  # fmt: skip
FORMATS: list[WeightFormat] = [Bf16(), Fp8Block(), Fp8Channel(), Fp8Tensor(), Int4Group(group_size=32, scope=Scope.ALL_LINEAR)]


def served_as(fmt: WeightFormat) -> ServedAs:
    return ServedAs(fmt, Selection(fmt, SHAPE))


NAMES = ("self_attn.q_proj.weight", "mlp.experts.{}.gate_proj.weight", "mlp.experts.{}.down_proj.weight", "input_layernorm.weight")
rows = st.integers(1, 4).map(lambda n: 32 * n)
ranks = st.integers(1, 9)


@st.composite
def manifests(draw: st.DrawFn) -> WeightManifest:
    """Any number of ranks, each tensor whole on one or cut by rows over several."""
    world, entries = draw(ranks), []
    for number in range(draw(st.integers(0, 14))):
        kind = draw(st.sampled_from(NAMES)).format(number % 4)
        shape = (draw(rows),) if "norm" in kind else (draw(rows), 64)
        cuts = sorted(draw(st.sets(st.integers(1, shape[0] - 1), max_size=3)))
        edges = [0, *cuts, shape[0]]
        pieces = tuple(
            Piece(draw(st.integers(0, world - 1)), (a, *(0,) * (len(shape) - 1)), (b - a, *shape[1:])) for a, b in pairwise(edges)
        )
        entries.append(Entry(f"model.layers.{number}.{kind}", "BF16", shape, pieces))
    return WeightManifest(world, tuple(entries))


def size(routes: Routes, number: int) -> int:
    entry = routes.manifest.entries[number]
    aligned = sum(-(-spec_bytes(d, s) // 16) * 16 for _, d, s in routes.served_as.specs(entry))
    return max(-(-entry.nbytes // 16) * 16, aligned)


@given(manifests(), st.integers(1, 40_000), st.sampled_from(FORMATS), st.data())
@settings(max_examples=150, deadline=None)
def test_every_tensor_is_sent_once_within_the_bound_by_a_sender_that_owns_of_it(
    manifest: WeightManifest, bound: int, fmt: WeightFormat, data: st.DataObject
) -> None:
    assert manifest.faults() == []
    senders = tuple(sorted(data.draw(st.sets(st.integers(0, manifest.ranks - 1), min_size=1))))
    routes = route(manifest, [EngineLayout(0), EngineLayout(1)], bound, served_as(fmt), senders)
    parcels = [parcel for row in routes.rounds for parcel in row]
    assert sorted(n for parcel in parcels for n in parcel.entries) == list(range(len(manifest.entries)))
    for row in routes.rounds:
        assert row and len({parcel.sender for parcel in row}) == len(row)
    for parcel in parcels:
        assert parcel.sender in senders
        assert len(parcel.entries) == 1 or sum(size(routes, n) for n in parcel.entries) <= bound
        for n in parcel.entries:
            owners = {piece.rank for piece in manifest.entries[n].pieces}
            assert parcel.sender in owners or not owners & set(senders)
    for sender in senders:
        own = [n for parcel, _ in routes.of(sender) for n in parcel.entries]
        assert own == sorted(own)
        assert all(set(to) == {Target(0), Target(1)} for _, to in routes.of(sender))
    assert route(manifest, [EngineLayout(0), EngineLayout(1)], bound, served_as(fmt), senders) == routes


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(1, 8))
@settings(max_examples=80, deadline=None)
def test_senders_that_may_choose_share_the_load(sizes: list[int], count: int) -> None:
    entries = tuple(Entry(f"t{n}", "BF16", (s,), (Piece(count, (0,), (s,)),)) for n, s in enumerate(sizes))
    routes = route(WeightManifest(count + 1, entries), [], 1 << 20, served_as(Bf16()), range(count))
    loads = [sum(size(routes, n) for parcel, _ in routes.of(sender) for n in parcel.entries) for sender in range(count)]
    assert max(loads) - min(loads) <= max(size(routes, n) for n in range(len(sizes)))


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f.kind)
def test_sizes_known_beforehand_are_those_of_the_quantizer(fmt: WeightFormat) -> None:
    name, weight = "model.layers.0.self_attn.q_proj.weight", torch.randn(130, 192).bfloat16()
    found = [(part, DTYPE_NAMES[t.dtype], tuple(t.shape)) for part, t in quantize(name, weight, fmt).items()]
    assert list(served_specs(name, (130, 192), fmt)) == found


TP2 = EngineLayout(1, 2, cuts=(("*q_proj.weight*", 0), ("*down_proj.weight", 1)))
EP2 = EngineLayout(2, 2, experts=4)


def test_ranks_of_an_engine_take_what_their_layout_says() -> None:
    name = "model.layers.0.mlp.experts.{}.gate_proj.weight"
    assert [EP2.part(0, name.format(e), (64, 64)) for e in range(4)] == [(), (), None, None]
    assert [EP2.part(1, name.format(e), (64, 64)) for e in range(4)] == [None, None, (), ()]
    assert EP2.part(1, "model.norm.weight", (64,)) == ()
    assert TP2.part(1, "model.layers.0.self_attn.q_proj.weight_scale_inv", (2, 1)) == (slice(1, 2),)
    assert TP2.part(0, "x.down_proj.weight", (8, 6)) == (slice(None), slice(0, 3))
    with pytest.raises(ValueError, match=r"dimension 0 of \[3, 4\] cannot be cut into 2"):
        TP2.part(0, "x.q_proj.weight", (3, 4))


def test_engine_ranks_that_take_the_same_share_a_bucket() -> None:
    found = audiences([EngineLayout(0), EngineLayout(1, 2), TP2, TP2, EP2])
    assert [len(audience.targets) for audience in found] == [3, 2, 2, 1, 1]


@pytest.mark.parametrize("mesh", [Mesh(), Mesh(tp=2), Mesh(tp=2, ep=2, pp=2), Mesh(ep=4), Mesh(pp=4)], ids=str)
def test_stand_in_meshes_tile_the_model(mesh: Mesh) -> None:
    weights = {f"model.layers.{n}.{kind.format(n)}": torch.zeros((64,) if "norm" in kind else (64, 64)) for n in range(4) for kind in NAMES}
    manifest = mesh_manifest(weights, mesh, layers=4, experts=4)
    assert manifest.faults() == []
    assert {piece.rank for entry in manifest.entries for piece in entry.pieces} <= set(range(mesh.ranks))
    assert sum(prod(p.shape) for e in manifest.entries for p in e.pieces) == sum(t.numel() for t in weights.values())


def test_a_manifest_says_what_is_wrong_with_it() -> None:
    entry = Entry("a", "BF16", (4,), (Piece(0, (0,), (3,)), Piece(5, (2,), (2,))))
    assert WeightManifest(2, (entry, entry)).faults() == [
        "a: a piece of a rank that does not exist",
        "a: the pieces do not tile [4]",
        "a: listed twice",
        "a: a piece of a rank that does not exist",
        "a: the pieces do not tile [4]",
    ]


def test_a_trillion_parameters_on_256_ranks_are_routed_in_seconds() -> None:
    """Not a time bound: the work is linear in tensors and pieces, so this finishes at once or not at all."""
    names = [f"model.layers.{n}.mlp.experts.{e}.up_proj.weight" for n in range(61) for e in range(384)]
    entries = tuple(Entry(name, "BF16", (2048, 7168), (Piece(n % 256, (0, 0), (2048, 7168)),)) for n, name in enumerate(names))
    routes = route(WeightManifest(256, entries), [EngineLayout(n) for n in range(64)], 1 << 30, ServedAs(Bf16(), Selection(Bf16(), SHAPE)))
    assert len(routes.rounds) <= 4
