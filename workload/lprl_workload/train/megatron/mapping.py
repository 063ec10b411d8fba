"""One table of names, every rank's part of it: for loading, export, weight pushes and what is quantised. Pure.

`Mapping.held` says what a rank has: each parameter of each model chunk, and the rectangles of checkpoint tensors it is made of.
`Mapping.keepers` says who keeps the master and the moments of each of them: one rank of those that hold the same parameter.
`Mapping.manifest` says who hands out what: of ranks that keep the same rectangle (whole tensors over a tensor group, a tied head) one
owns it, so that together the owned ones are the checkpoint, each element once.

Invariants (tests/unit/lprl_workload/train/megatron/test_mapping.py asserts each, on any mesh):

1. Over all ranks the owned rectangles tile every tensor of the checkpoint.
2. A rank's parts tile its parameters, but for the vocabulary's padding.
3. Equal arguments give an equal manifest, on every rank: no state, no order of hashing.
4. A rank keeps what it owns. What the ranks keep that hold the same differs by one parameter at most.
"""

from collections.abc import Iterator
from collections.abc import Mapping as ReadOnly
from dataclasses import dataclass
from functools import cache
from math import prod

from lprl_api.model.checkpoint_tensors import CORRECTION, EMBEDDING, HEAD, checkpoint_tensors
from lprl_api.model.model_shape import ModelShape
from lprl_workload.hf.naming import Naming
from lprl_workload.quant.select import Chosen
from lprl_workload.quant.specs import spec_bytes
from lprl_workload.sync.manifest import Entry, Piece, WeightManifest
from lprl_workload.train.megatron import parts
from lprl_workload.train.megatron.families import family_of
from lprl_workload.train.megatron.parts import Cutting, Dimensions, Part, Tensor
from lprl_workload.train.megatron.stages import Stages
from lprl_workload.train.megatron.table import Cut, Modules, Row
from lprl_workload.train.mesh import TrainMesh

VOCAB_MULTIPLE = 64
"""A rank's rows of the embedding are a multiple of this, which products on GPUs are fast with."""
_OUTSIDE = (
    Row("embedding.word_embeddings.weight", (EMBEDDING,), "vocab"),
    Row("decoder.final_layernorm.weight", ("model.norm.weight",)),
    Row("output_layer.weight", (HEAD,), "vocab"),
)
_LAYERS = "model.layers."


@dataclass(frozen=True, slots=True)
class Held:
    """One parameter of a rank."""

    chunk: int
    """Model chunk of the rank's stage."""
    name: str
    """In that chunk."""
    cutting: Cutting
    of_experts: bool = False
    """Whether it is an expert's: held by the ranks of its place among experts, not by those of the tensor rank."""

    @property
    def key(self) -> tuple[int, str]:
        """Return (chunk, name)."""
        return self.chunk, self.name


@dataclass(frozen=True, slots=True)
class Mapping:
    """The checkpoint of a model of `shape` over the ranks of `mesh`; what cannot be cut raises UncutError, naming the tensor."""

    shape: ModelShape
    mesh: TrainMesh
    stages: Stages
    modules: Modules = "local"
    naming: Naming | None = None
    """What the folder calls a language model that is a part of another; None for a model of its own."""

    def __post_init__(self) -> None:
        if len(self.stages.layers) != self.mesh.pp or self.stages.vpp != self.mesh.vpp:
            raise ValueError(f"{self.stages}: the mesh has {self.mesh.pp} stages of {self.mesh.vpp} chunks")
        if sum(self.stages.layers) != self.shape.layers:
            raise ValueError(f"{self.stages}: the model has {self.shape.layers} layers")

    @property
    def tensors(self) -> ReadOnly[str, Dimensions]:
        """Every tensor of the checkpoint, as the folder calls it, and its shape."""
        return _tensors(self.shape, self.naming)

    def stored(self, name: str) -> str:
        """Return what the folder calls a tensor."""
        return name if self.naming is None else self.naming.stored(name)

    @property
    def padded_vocab(self) -> int:
        """Rows of the embedding over all tensor ranks."""
        each = VOCAB_MULTIPLE * self.mesh.tp
        return -(-self.shape.vocab // each) * each

    def held(self, rank: int) -> tuple[Held, ...]:
        """Return what `rank` has, chunk by chunk."""
        stage = self.mesh.coordinates(rank).stage
        return tuple(held for chunk in range(self.mesh.vpp) for held in self._chunk(rank, stage, chunk))

    def _chunk(self, rank: int, stage: int, chunk: int) -> Iterator[Held]:
        tensor = self.mesh.coordinates(rank).tensor
        embedding, norm, head = _OUTSIDE
        if self.stages.embeds(stage, chunk):
            yield self._outside(chunk, embedding, EMBEDDING, tensor)
        for local, layer in enumerate(self.stages.chunk(stage, chunk)):
            for name, cutting, of_experts in self._layer(layer, rank, tensor):
                yield Held(chunk, f"decoder.layers.{local}.{name}", cutting, of_experts)
        if self.stages.ends(stage, chunk):
            yield self._outside(chunk, norm, norm.sources[0], tensor)
            # A tied head is the embedding itself where both lie in one chunk.
            if not (self.shape.tied_embeddings and self.stages.embeds(stage, chunk)):
                yield self._outside(chunk, head, EMBEDDING if self.shape.tied_embeddings else HEAD, tensor)

    def _outside(self, chunk: int, row: Row, source: str, tensor: int) -> Held:
        name = self.stored(source)
        sources = [Tensor(name, self.tensors[name])]
        return Held(chunk, row.parameter, self._cut(row.cut, sources, tensor, self.mesh.tp))

    def _layer(self, layer: int, rank: int, tensor: int) -> Iterator[tuple[str, Cutting, bool]]:
        prefix, tensors = self.stored(f"{_LAYERS}{layer}."), self.tensors
        expert, expert_tensor = self.mesh.expert_coordinates(rank)
        for row in self._rows(layer):
            cut = row.cut_by(self.modules)
            if not row.of_experts:
                sources = [Tensor(prefix + name, tensors[prefix + name]) for name in row.sources]
                if cut == "sections":
                    values = tensors[f"{prefix}{row.beside}"][1]
                    yield row.name(self.modules), parts.sections(sources, tensor, self.mesh.tp, values), False
                else:
                    yield row.name(self.modules), self._cut(cut, sources, tensor, self.mesh.tp), False
                continue
            mine = parts.share(self.shape.moe.experts if self.shape.moe else 0, self.mesh.ep, f"{prefix}mlp.experts", "experts")
            for local in range(mine):
                names = [prefix + name.format(expert * mine + local) for name in row.sources]
                sources = [Tensor(name, tensors[name]) for name in names]
                yield row.name(self.modules).format(local), self._cut(cut, sources, expert_tensor, self.mesh.etp), True

    def _rows(self, layer: int) -> list[Row]:
        """Return the rows of the family's table that a layer has."""
        there = _by_layer(self.shape)[layer]
        rows = family_of(self.shape).layer
        return [row for row in rows if row.sources[0].format(0) in there and (row.beside is None or row.beside in there)]

    def _cut(self, cut: Cut, sources: list[Tensor], rank: int, ranks: int) -> Cutting:
        match cut:
            case "whole":
                return parts.whole(sources)
            case "rows":
                return parts.rows(sources, rank, ranks)
            case "columns":
                return parts.columns(sources, rank, ranks)
            case "groups":
                return parts.groups(sources, rank, ranks, self.shape.kv_heads)
            case "sections":
                raise ValueError(f"{sources[0].name}: sections of a tensor without another beside it")
            case "vocab":
                return parts.vocab(sources, rank, ranks, VOCAB_MULTIPLE)

    def keepers(self, rank: int) -> ReadOnly[tuple[int, str], int]:
        """Return by (chunk, name) which rank keeps the master of each parameter that `rank` has: itself, or another that has it too."""
        held, found = self.held(rank), dict[tuple[int, str], int]()
        for of_experts in (False, True):
            ranks = self.mesh.replicas(rank, of_experts)
            found |= self._dealt([one for one in held if one.of_experts == of_experts], ranks)
        return found

    def _dealt(self, held: list[Held], ranks: tuple[int, ...]) -> dict[tuple[int, str], int]:
        """Deal parameters over the ranks that all hold them, the largest first, each to the rank with the fewest elements so far.

        A tied head and the embedding go first, to the first rank: they lie on two stages, whose ranks add up their gradients.
        """
        if len(ranks) == 1:
            return {one.key: ranks[0] for one in held}
        tied = (_OUTSIDE[0].parameter, _OUTSIDE[2].parameter) if self.shape.tied_embeddings else ()
        load, found = dict.fromkeys(ranks, 0), dict[tuple[int, str], int]()
        for one in sorted(held, key=lambda h: (h.name not in tied, -prod(h.cutting.shape), h.key)):
            found[one.key] = ranks[0] if one.name in tied else min(ranks, key=load.__getitem__)
            load[found[one.key]] += prod(one.cutting.shape)
        return found

    def manifest(self) -> WeightManifest:
        """Return who owns what, sorted by name."""
        return _manifest(self)

    def owned(self, rank: int) -> ReadOnly[tuple[str, Dimensions], tuple[Held, Part]]:
        """Return what a rank hands out, by tensor and offset."""
        mine = {(e.name, p.offset) for e in self.manifest().entries for p in e.pieces if p.rank == rank}
        found: dict[tuple[str, Dimensions], tuple[Held, Part]] = {}
        for held in self.held(rank):
            for part in held.cutting.parts:
                if (part.name, part.offset) in mine:
                    found.setdefault((part.name, part.offset), (held, part))
        return found


@cache
def _tensors(shape: ModelShape, naming: Naming | None) -> ReadOnly[str, Dimensions]:
    found = checkpoint_tensors(shape)
    return found if naming is None else {naming.stored(name): size for name, size in found.items()}


@cache
def _by_layer(shape: ModelShape) -> tuple[frozenset[str], ...]:
    """Return the names of each layer's tensors, without what they begin with."""
    found: list[set[str]] = [set() for _ in range(shape.layers)]
    for name in checkpoint_tensors(shape):
        if name.startswith(_LAYERS):
            number, _, rest = name.removeprefix(_LAYERS).partition(".")
            found[int(number)].add(rest)
    return tuple(map(frozenset, found))


@cache
def _manifest(mapping: Mapping) -> WeightManifest:
    """Deal rectangles that several ranks keep out over them: each to the one with the fewest bytes so far."""
    holders: dict[str, dict[Dimensions, tuple[Dimensions, list[int]]]] = {name: {} for name in mapping.tensors}
    for rank in range(mapping.mesh.world):
        keepers = mapping.keepers(rank)
        for held in (held for held in mapping.held(rank) if keepers[held.key] == rank):
            for part in held.cutting.parts:
                ranks = holders[part.name].setdefault(part.offset, (part.shape, []))[1]
                if rank not in ranks[-1:]:
                    ranks.append(rank)
    load, entries = [0] * mapping.mesh.world, list[Entry]()
    for name in sorted(holders):
        dtype, pieces = "F32" if name.endswith(CORRECTION) else "BF16", list[Piece]()
        for offset, (shape, ranks) in sorted(holders[name].items()):
            owner = min(ranks, key=lambda rank: (load[rank], rank))
            load[owner] += spec_bytes(dtype, shape)
            pieces.append(Piece(owner, offset, shape))
        if not pieces:
            raise ValueError(f"{name}: no row of the table of {mapping.shape.architecture} has it")
        entries.append(Entry(name, dtype, mapping.tensors[name], tuple(pieces)))
    return WeightManifest(mapping.mesh.world, tuple(entries))


def quantised(mapping: Mapping, rank: int, selection: Chosen) -> frozenset[tuple[int, str]]:
    """Return (chunk, name) of a rank's parameters that `selection` quantises.

    Raises ValueError where it takes some of the tensors that make one parameter, and leaves others.
    """
    tensors, found = mapping.tensors, set[tuple[int, str]]()
    for held in mapping.held(rank):
        taken = {selection.selects(part.name, tensors[part.name]) for part in held.cutting.parts}
        if len(taken) > 1:
            names = ", ".join(sorted({part.name for part in held.cutting.parts}))
            raise ValueError(f"{held.name}: some of its tensors are quantised and some are not: {names}")
        if True in taken:
            found.add((held.chunk, held.name))
    return frozenset(found)
