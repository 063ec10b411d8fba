"""Attention over sequences laid end to end, where samples of one prompt share its tokens.

A model forwards [1, N] tokens: linear layers, norms and experts see no padding and no prompt twice. Only attention knows which
tokens belong together. A layout has two kinds of blocks, in the order of their tokens:

    Whole      sequences on their own, each attending to itself causally
    Families   n prompts of P tokens, then the continuations of each, G a prompt: prompts attend to themselves causally,
               continuations to their prompt and, causally, to themselves

The result is what every sample alone would give, up to the rounding of sums in another order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from lprl_workload.hf.attend import Attention, causal, chosen
from lprl_workload.hf.by_position import chunk_of, tempered

PACKED = "lprl_packed"
"""Name of this attention for transformers."""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Rows of tokens that lie end to end, padded on the right to one width for the kernel."""

    rows: int
    width: int
    gather: Tensor | None
    """int64 [rows * width]: the token in each cell (any on padding); None when no row is shorter than another."""
    place: Tensor | None
    """int64 [tokens]: the cell of each token; None with `gather`."""

    @classmethod
    def of(cls, lengths: list[int], device: torch.device) -> "Rectangle":
        """Return the rectangle of rows of `lengths`."""
        width = max(lengths)
        if min(lengths) == width:
            return cls(len(lengths), width, None, None)
        starts = [sum(lengths[:row]) for row in range(len(lengths))]
        gather = [
            start + min(column, length - 1) if length else 0
            for start, length in zip(starts, lengths, strict=True)
            for column in range(width)
        ]
        place = [row * width + column for row, length in enumerate(lengths) for column in range(length)]
        return cls(len(lengths), width, torch.tensor(gather, device=device), torch.tensor(place, device=device))

    def spread(self, x: Tensor) -> Tensor:
        """Return [tokens, heads, dim] as [rows, width, heads, dim]."""
        cells = x if self.gather is None else x.index_select(0, self.gather)
        return cells.view(self.rows, self.width, *x.shape[1:])

    def gathered(self, x: Tensor) -> Tensor:
        """Undo `spread`."""
        flat = x.flatten(0, 1)
        return flat if self.place is None else flat.index_select(0, self.place)


@dataclass(frozen=True, slots=True)
class Whole:
    """Sequences of their own."""

    rectangle: Rectangle
    lengths: tuple[int, ...]
    """Tokens of each sequence."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Tokens of the parts of the block."""
        return (sum(self.lengths),)

    def attend(self, parts: list[tuple[Tensor, Tensor, Tensor]], how: Attention, indices: Sequence[Tensor] = ()) -> list[Tensor]:
        """Return the outputs [tokens, heads, dim] of the block's parts, given queries, keys and values, and perhaps the keys that count."""
        q, k, v = (self.rectangle.spread(x) for x in parts[0])
        mask = _among(indices[0], None, k) if indices else None
        return [self.rectangle.gathered(_attention(q, k, v, how, mask))]


@dataclass(frozen=True, slots=True)
class Families:
    """Prompts of one length, and equally many continuations of each."""

    prompts: Rectangle
    continuations: Rectangle
    sizes: tuple[int, ...]
    mask: Tensor
    """Causal, aligned at the end: [width of continuations, prompt + width], 0 where a token is seen, else -inf."""

    def attend(self, parts: list[tuple[Tensor, Tensor, Tensor]], how: Attention, indices: Sequence[Tensor] = ()) -> list[Tensor]:
        """Return the outputs [tokens, heads, dim] of the block's parts, given queries, keys and values, and perhaps the keys that count."""
        q, k, v = (self.prompts.spread(x) for x in parts[0])
        own_q, own_k, own_v = (self.continuations.spread(x) for x in parts[1])
        seen_k, seen_v = self._after(k, own_k), self._after(v, own_v)
        among = (_among(indices[0], None, k), _among(indices[1], self.mask, seen_k)) if indices else (None, self.mask)
        return [
            self.prompts.gathered(_attention(q, k, v, how, among[0])),
            self.continuations.gathered(_attention(own_q, seen_k, seen_v, how, among[1])),
        ]

    def _after(self, prompt: Tensor, own: Tensor) -> Tensor:
        """Return what continuations attend to: prompt [n, P, ...] and own [n * G, R, ...] as [n * G, P + R, ...]."""
        by_prompt = own.view(self.prompts.rows, -1, *own.shape[1:])
        # expand, not a gather: its backward is a plain sum over the continuations.
        copies = prompt.unsqueeze(1).expand(-1, by_prompt.shape[1], -1, -1, -1)
        return torch.cat([copies, by_prompt], dim=2).flatten(0, 1)


Layout = tuple[Whole | Families, ...]


def families(count: int, prompt: int, lengths: list[int], device: torch.device) -> Families:
    """Return the block of `count` prompts of `prompt` tokens whose continuations have `lengths`, prompt by prompt."""
    continuations = Rectangle.of(lengths, device)
    columns, rows = torch.arange(prompt + continuations.width, device=device), torch.arange(continuations.width, device=device)
    hidden = columns > rows[:, None] + prompt
    # Numbers, not booleans, which torch would turn into numbers in every layer.
    mask = torch.zeros(hidden.shape, device=device).masked_fill_(hidden, float("-inf"))
    return Families(Rectangle.of([prompt] * count, device), continuations, (count * prompt, sum(lengths)), mask)


def whole(lengths: list[int], device: torch.device) -> Whole:
    """Return the block of sequences of `lengths`."""
    return Whole(Rectangle.of(lengths, device), tuple(lengths))


def _attention(q: Tensor, k: Tensor, v: Tensor, how: Attention, mask: Tensor | None = None) -> Tensor:
    """Attention of [rows, length, heads, dim] tensors, causal where no mask is given."""
    return how.product(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask).transpose(1, 2)


def _among(indices: Tensor, mask: Tensor | None, keys: Tensor) -> Tensor:
    """Return the mask of a part whose queries see only `indices` [rows, Q, n] of the keys [rows, K, ...]; `mask` [Q, K], or causal."""
    width = keys.shape[1]
    return chosen(indices, width) + (causal(width, width, keys.device) if mask is None else mask)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    layout: Layout,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    indices: Sequence[Tensor] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return ([1, N, heads, dim], None) of query, key, value [1, heads, N, dim]: an attention function of transformers.

    Window, cap and sinks come from layers whose class has them, indices (a tensor for each part of the layout) from indexed.py.
    """
    how = Attention(dropout, scaling, sliding_window, chunk_of(module), softcap, s_aux)
    query = tempered(module, query)
    sizes = [size for block in layout for size in block.sizes]
    split = [torch.split(x[0].transpose(0, 1), sizes) for x in (query, key, value)]
    parts = list(zip(*split, strict=True))
    found: list[Tensor] = []
    for block in layout:
        mine = parts[len(found) : len(found) + len(block.sizes)]
        found += block.attend(mine, how, [] if indices is None else indices[len(found) : len(found) + len(block.sizes)])
    return torch.cat(found).unsqueeze(0), None


def use_packed_attention(model: Any) -> None:
    """Make `model` take `layout=` (and position_ids) with [1, N] tokens, in place."""
    AttentionInterface.register(PACKED, packed_attention)
    model.set_attn_implementation(PACKED)
