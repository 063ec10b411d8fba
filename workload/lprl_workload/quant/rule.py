"""What is quantised of a family that no table knows: one rule over names and shapes, and over what the class says where there is one.

quantised   weight matrices inside the text model's decoder layers (the container of layers beside its token embedding): linear layers,
            and the matrices of routed experts
plain       those with fewer than 128 rows or columns (gates of single heads, routers, in_proj_a/b): what official low-precision releases
            keep plain, mostly, is small; and by their last names norms, convolutions, routers, gates, heads, embeddings

Projections that every engine knows (`kind_of`) count at any size, as in the families with a table. docs/families.md compares the rule
with official releases.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from lprl_api.model.module_kinds import kind_of

Kind = Literal["routed", "linear"]
SMALL = 128
"""Rows or columns below which a matrix stays plain: a scale of a block would stand for less than it is worth."""
_PLAIN = re.compile(
    r"norm|conv|router|classifier|embed|(?:^|_)gate$|^eh_proj$|^lm_head$|^head$|^shared_head$|^(?:x|dt)_proj$|^A_log$|^sinks?$|^hc_"
)
"""Last names of modules that stay plain whatever their shape."""
_EXPERT = re.compile(r"(?:^|\.)experts\.\d+\.")
_FUSED_EXPERTS = re.compile(r"(?:^|\.)experts\.[^.]+$|(?:^|\.)experts\.[^.]+\.weight$|(?:^|\.)block_sparse_moe\.[^.]+\.weight$")
_NUMBERED = re.compile(r"^(.*?)\.?(\d+)\.")
EMBEDDINGS = ("embed_tokens.weight", "embeddings.weight", "word_embeddings.weight", "tok_embeddings.weight", "wte.weight", "embed.weight")
"""What models call their token embedding, the usual name first."""


class Matrix(NamedTuple):
    """One published tensor inside one in the form transformers keeps in memory: contiguous rows of experts, or all of it."""

    name: str
    """What it is written as."""
    shape: tuple[int, ...]
    first: int
    """Elements of the tensor before it."""


class Place(NamedTuple):
    """Where decoder layers are in a checkpoint."""

    prefix: str
    """Of the text model: what stands before its embedding."""
    container: str
    """What stands between that and a layer's number, without the dot: `layers`."""

    def layer(self, name: str) -> int | None:
        """Return the decoder layer a tensor or module lies in, None for others."""
        begins = f"{self.prefix}{self.container}."
        number = name[len(begins) :].partition(".")[0] if name.startswith(begins) else ""
        return int(number) if number.isdigit() else None


@dataclass(frozen=True)
class Ruled:
    """What the converter knows of a model without a table."""

    model_class: str
    """Of transformers, or what config.json calls it."""
    way: Literal["class", "index"]
    """Whether names, layout and linear layers are the class's, or names and shapes alone decide."""
    place: Place
    layers: int
    """Decoder layers; those from there on predict further tokens."""
    experts: int
    """Routed experts of a layer; 0 without."""
    kinds: Mapping[str, Kind]
    """Weight (as it is written) -> kind, of what the rule quantises."""
    fused: Mapping[str, tuple[Matrix, ...]] = field(default_factory=dict)
    """Tensor of the folder in the form transformers keeps in memory -> the published ones, in the order they lie in."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Tensors the rule would quantise and nothing here or in transformers could -> why."""
    called: Mapping[str, str] = field(default_factory=dict)
    """Module of the checkpoint -> what the class calls it, where that is another name."""
    own_prefix: str | None = None
    """What the class's own checkpoint has in place of the folder's `place.prefix`; None without a class."""


def is_linear(module: str, rows: int, cols: int, experts: int = 0) -> bool:
    """Return whether the rule quantises a matrix [rows, cols] of a decoder layer, routed experts apart."""
    if kind_of(f"{module}.weight") is not None:
        return True
    if rows < SMALL or cols < SMALL or (experts and rows == experts):
        return False
    return _PLAIN.search(module.rpartition(".")[2]) is None


def is_expert(name: str) -> bool:
    """Return whether a tensor belongs to one routed expert, by its name."""
    return _EXPERT.search(name) is not None


def is_fused_expert(name: str) -> bool:
    """Return whether a 3-D tensor holds a layer's experts, by its name."""
    return _FUSED_EXPERTS.search(name) is not None


def place_of(names: Iterable[str], embedding: str | None = None) -> Place | None:
    """Return where the decoder layers of a checkpoint are; None where no token embedding stands beside numbered layers.

    `embedding`: the last names of its token embedding (default: any usual one). Of several, the one with most layers beside it counts.
    """
    known = list(names)
    best: tuple[int, Place] | None = None
    for leaf in (embedding,) if embedding else EMBEDDINGS:
        for prefix in sorted({name.removesuffix(leaf) for name in known if name == leaf or name.endswith(f".{leaf}")}):
            containers = Counter(_container(name.removeprefix(prefix)) for name in known if name.startswith(prefix))
            containers.pop("", None)
            if containers and (best is None or containers.most_common(1)[0][1] > best[0]):
                container, count = containers.most_common(1)[0]
                best = count, Place(prefix, container)
    return best[1] if best else None


def _container(rest: str) -> str:
    """Return what stands before the first number of a name, without its dot; empty where there is none."""
    found = _NUMBERED.match(rest)
    return found[1] if found and rest[found.end(1) : found.start(2)] == "." else ""
