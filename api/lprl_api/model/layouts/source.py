"""One config.json as the functions of a family read it, and the shape they make of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lprl_api.errors import UserError
from lprl_api.model.config_reader import Reader
from lprl_api.model.hf_config import dtype_of, is_tied
from lprl_api.model.model_shape import Cache, Layout, Mla, ModelShape, Moe, Part
from lprl_api.model.module_kinds import kind_of
from lprl_api.model.weight import LINEAR_KINDS, Weight
from lprl_api.model.weight_rows import row_of, text_of

FULL, SLIDING = "full_attention", "sliding_attention"
SMALL = 128
"""Rows or columns below which a matrix that no engine's table knows stays plain."""
NORMS = ("input_layernorm", "post_attention_layernorm")


@dataclass(frozen=True)
class Source:
    """A parsed config.json: `text` is its language model's part."""

    text: Mapping[str, Any]
    read: Reader
    outer: Reader
    architecture: str

    @property
    def layers(self) -> int:
        """Decoder layers: as many as blocks are listed where they are, whatever the number says."""
        listed = self.text.get("layers_block_type")
        return len(listed) if isinstance(listed, list) and listed else self.read.number("num_hidden_layers")

    @property
    def hidden(self) -> int:
        """Channels of the residual stream."""
        return self.read.number("hidden_size")

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.read.number("num_attention_heads")

    @property
    def kv_heads(self) -> int:
        """Key and value heads; as many as heads where nothing is said."""
        return self.read.number("num_key_value_heads", self.heads)

    @property
    def head_dim(self) -> int:
        """Channels of a head; hidden / heads where nothing is said."""
        return self.read.number("head_dim", self.hidden // self.heads)

    def kinds(self, key: str, default: Iterable[str], known: Iterable[str] = (FULL, SLIDING)) -> tuple[str, ...]:
        """Return a list with a kind for each layer. Raises UserError for a short one (more may follow) and for other kinds."""
        listed = self.text.get(key)
        found = tuple(default) if listed is None else tuple(map(str, listed)) if isinstance(listed, list | tuple) else ()
        if len(found) < self.layers:
            raise self.read.error(key, f"a kind for each of the {self.layers} layers")
        if other := next((kind for kind in found[: self.layers] if kind not in known), None):
            raise UserError(f"config.json: {self.read.prefix}{key}: got {other[:80]!r}; needs of each layer one of {', '.join(known)}")
        return found[: self.layers]

    def dense_first(self, key: str = "first_k_dense_replace", default: int = 0) -> tuple[list[int], list[int]]:
        """Return (layers with a dense MLP, layers with experts): the first `key` are dense."""
        dense = min(self.read.number(key, default, least=0), self.layers)
        return list(range(dense)), list(range(dense, self.layers))


@dataclass
class Draft:
    """A layout being put together."""

    source: Source
    parts: list[tuple[str, tuple[Weight, ...], Cache | None]] = field(default_factory=list)
    """(layers as text, weights, cache)."""
    outside: list[Weight] = field(default_factory=list)

    def add(self, weights: Iterable[Weight], layers: Iterable[int] | None = None, cache: Cache | None = None) -> None:
        """Add weights and a cache to some layers, to all without `layers`; nothing where there are none."""
        chosen = list(range(self.source.layers) if layers is None else layers)
        if chosen:
            self.parts.append((text_of(chosen), tuple(weights), cache))

    def shape(
        self, *, ffn: int, head_dim: int | None = None, kv_heads: int | None = None, moe: Moe | None = None, mla: Mla | None = None,
        mtp: int = 0, tied: bool = False,
    ) -> ModelShape:  # fmt: skip
        """Return the shape; `tied`: what the family's class takes where nothing is said of the head."""
        source, experts = self.source, moe.experts if moe else 0
        parts = [
            Part(layers=layers, rows=tuple(row_of(_as_converted(weight, experts)) for weight in weights), cache=cache)
            for layers, weights, cache in self.parts
        ]
        return ModelShape(
            architecture=source.architecture,
            family="other",
            layers=source.layers,
            hidden=source.hidden,
            heads=source.heads,
            kv_heads=kv_heads or (source.heads if mla else source.kv_heads),
            head_dim=head_dim or source.head_dim,
            ffn=ffn,
            vocab=source.read.number("vocab_size"),
            tied_embeddings=is_tied(source.read, source.outer, tied),
            max_positions=source.read.number("max_position_embeddings", 32768),
            dtype=dtype_of(source.read, source.outer),
            moe=moe,
            mla=mla,
            mtp_layers=mtp,
            layout=Layout(parts=tuple(parts), outside=tuple(map(row_of, self.outside))),
        )


def _as_converted(weight: Weight, experts: int) -> Weight:
    """Return a weight as the converter's rule takes it (docs/families.md): small matrices, and those with a row an expert, stay plain."""
    known = weight.kind == "expert" or kind_of(f"layers.0.{weight.module}.weight") is not None
    if known or weight.kind not in LINEAR_KINDS or (min(weight.rows, weight.cols) >= SMALL and weight.rows != experts):
        return weight
    return replace(weight, kind="plain")
