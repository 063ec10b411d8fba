"""A KV cache with one slot a row: rows come and go one by one, each at a position of its own.

Legend: R slots, C positions a slot (columns), h heads, d head dimension.

Row i of a pass is slot i, so a pass over n rows reads a view of the first n slots and nothing is copied; a slot that falls free
is filled with the last one. Keys begin at column 0 whatever the row's neighbours are: masked columns behind a row's end add exact
zeros, so a row's result depends on its own tokens only.
"""

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from lprl_workload.rollout.slot_states import HoldsStates, StatesOfLayers

COLUMN_STEP = 64
"""Columns are read in multiples of this: sums over a row's keys then keep one order as it grows and as its neighbours change."""


class SlotLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, [R, h, C, d], and where the running pass writes and reads."""

    def __init__(self) -> None:
        super().__init__()
        self.is_initialized = True
        self.buffers: list[Tensor] = []
        self.fresh: tuple[Tensor, ...] = ()
        """States of the last prefill, [P, h, T, d]."""
        self.slots: Tensor | None = None
        """int64 [n] 0..n-1 while rows are decoded; None during a prefill."""
        self.columns: Tensor | None = None
        """int64 [n]: where each row's new token goes."""
        self.width = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Keep the states of a prefill, or write [n, h, 1, d] states to their columns; returns the keys and values to attend to."""
        keys, values = self.hold(key_states, value_states)
        return keys, values

    def hold(self, *given: Tensor) -> tuple[Tensor, ...]:
        """See `update`; of as many kinds of states as there are."""
        if self.slots is None:
            self.fresh = given
            return given
        rows = len(self.slots)
        for buffer, states in zip(self.buffers, given, strict=True):
            buffer[self.slots, :, self.columns] = states[:, :, 0]
        return tuple(buffer[:rows, :, : self.width] for buffer in self.buffers)

    def get_seq_length(self) -> int:
        """Positions come with every pass; transformers need not count."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Of a prefill: the prompts attend to themselves only."""
        return query_length, 0

    def settle(self) -> None:
        """Let the states of the last prefill go."""
        self.fresh = ()

    def reserve(self, slots: int, columns: int) -> None:
        """Make room for so many slots and columns, keeping what is there. New room is zero: 0 x NaN of stale memory is NaN."""
        grown = []
        for position, like in enumerate(self.buffers or self.fresh):
            buffer = like.new_zeros((slots, like.shape[1], columns, like.shape[3]))
            if self.buffers:
                old = self.buffers[position]
                buffer[: old.shape[0], :, : old.shape[2]] = old
            grown.append(buffer)
        self.buffers = grown

    def place(self, slot: int, prompt: int, length: int) -> None:
        """Fill a slot with the first `length` states of a prefilled prompt."""
        for buffer, states in zip(self.buffers, self.fresh, strict=True):
            buffer[slot].zero_()
            buffer[slot, :, :length] = states[prompt, :, :length]

    def move(self, source: int, target: int) -> None:
        """Copy one slot over another."""
        for buffer in self.buffers:
            buffer[target] = buffer[source]


class SlotCache(HoldsStates, Cache):  # type: ignore[misc]
    """A transformers cache of SlotLayers, and of SlotStates where layers keep states."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=SlotLayer)
        self.states = StatesOfLayers()
        self.indexers: dict[int, SlotLayer] = {}
        """Index keys of layers that have them, as of one head."""
        self.size = (0, 0)
        """Slots and columns there is room for."""

    def update_indexer(self, indexer_key_states: Tensor, layer_idx: int) -> Tensor:
        """Take a layer's index keys [n, T, d]; returns those to choose among."""
        layer = self.indexers.setdefault(layer_idx, SlotLayer())
        return layer.hold(indexer_key_states[:, None])[0][:, 0]

    def _holding(self) -> tuple[SlotLayer, ...]:
        """Return what has a place for each token of a slot."""
        return (*self.layers, *self.indexers.values())

    def prefill(self) -> None:
        """The next pass is a prefill: prompts attend to themselves, their states are kept for `place`."""
        self.states.rows = None
        for layer in self._holding():
            layer.slots = None

    def settle(self) -> None:
        """Let the states of the last prefill go."""
        for layer in self._holding():
            layer.settle()
        for states in self.states.of.values():
            states.settle()

    def decode(self, columns: Tensor, width: int) -> None:
        """The next pass writes one token of slot i at columns[i] (int64 [n]) and attends to columns below `width`."""
        slots = torch.arange(len(columns), device=columns.device)
        self.states.rows = len(columns)
        for layer in self._holding():
            layer.slots, layer.columns, layer.width = slots, columns, width

    def reserve(self, slots: int, columns: int) -> None:
        """Make room in every layer; there must have been a prefill."""
        self.size = (max(slots, self.size[0]), max(columns, self.size[1]))
        for layer in self._holding():
            layer.reserve(*self.size)
        for states in self.states.of.values():
            states.reserve(self.size[0])

    def place(self, slot: int, prompt: int, length: int) -> None:
        """Fill a slot in every layer from the last prefill."""
        for layer in self._holding():
            layer.place(slot, prompt, length)
        for states in self.states.of.values():
            states.place(slot, prompt)

    def move(self, source: int, target: int) -> None:
        """Copy a slot in every layer."""
        for layer in self._holding():
            layer.move(source, target)
        for states in self.states.of.values():
            states.move(source, target)
