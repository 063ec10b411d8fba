"""States of linear attention with one slot a row: what a layer keeps of a sequence whatever its length (slots.py keeps the rest).

Legend: R slots, B rows of a pass, C channels of the convolution, K its kernel.
"""

from typing import Any

from torch import Tensor
from torch.nn.functional import pad


class SlotStates:
    """Convolution inputs [R, C, K] and state [R, ...] of one layer."""

    def __init__(self) -> None:
        self._fresh: list[Tensor | None] = [None, None]
        """Of the last prefill: rows of one length, so that each row's last token is the pass's."""
        self._buffers: list[Tensor | None] = [None, None]
        self.rows: int | None = None
        """Rows that are decoded; None during a prefill."""

    def get(self, which: int) -> Tensor | None:
        """Return the part of the rows that are decoded, a view that the layer may write to; nothing during a prefill."""
        buffer = self._buffers[which]
        return None if self.rows is None or buffer is None else buffer[: self.rows]

    def convolved(self, inputs: Tensor, kernel: int) -> Tensor:
        """Keep the last inputs [B, C, T] of a prefill's convolution; returns what the layer convolves."""
        if self.rows is not None:
            raise RuntimeError("a pass over drawn tokens has one of each row")
        self._fresh[0] = pad(inputs, (max(0, kernel - inputs.shape[-1]), 0))[..., -kernel:]
        return inputs

    def became(self, state: Tensor) -> Tensor:
        """Keep the state [B, ...] after a pass."""
        if self.rows is None:
            self._fresh[1] = state
        else:
            into = self.get(1)
            assert into is not None, "rows were placed before they are decoded"
            into.copy_(state)
        return state

    def settle(self) -> None:
        """Let the states of the last prefill go."""
        self._fresh = [None, None]

    def reserve(self, slots: int) -> None:
        """Make room for so many slots, keeping what is there."""
        for which, fresh in enumerate(self._fresh):
            buffer = self._buffers[which]
            like = fresh if buffer is None else buffer
            if like is not None and (buffer is None or len(buffer) < slots):
                grown = like.new_zeros((slots, *like.shape[1:]))
                if buffer is not None:
                    grown[: len(buffer)] = buffer
                self._buffers[which] = grown

    def place(self, slot: int, prompt: int) -> None:
        """Fill a slot from a row of the last prefill."""
        for buffer, fresh in zip(self._buffers, self._fresh, strict=True):
            if buffer is not None and fresh is not None:
                buffer[slot] = fresh[prompt]

    def move(self, source: int, target: int) -> None:
        """Copy one slot over another."""
        for buffer in self._buffers:
            if buffer is not None:
                buffer[target] = buffer[source]


class StatesOfLayers:
    """A transformers cache's questions about linear attention, answered from slots."""

    def __init__(self) -> None:
        self.of: dict[int, SlotStates] = {}
        self.rows: int | None = None
        """Rows that are decoded; None during a prefill."""

    def at(self, layer: int) -> SlotStates:
        """Return a layer's states."""
        found = self.of.setdefault(layer, SlotStates())
        found.rows = self.rows
        return found


class HoldsStates:
    """What a transformers cache is asked by layers of linear attention."""

    states: StatesOfLayers

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """Return the last inputs of a layer's convolution, [n, C, K]."""
        return self.states.at(layer_idx).get(0)

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """Return a layer's state, [n, ...]."""
        return self.states.at(layer_idx).get(1)

    def update_conv_state(self, conv_states: Tensor, layer_idx: int, state_idx: int = 0, conv_kernel_size: int = 0, **_: Any) -> Tensor:
        """Take inputs of a prefill's convolution."""
        return self.states.at(layer_idx).convolved(conv_states, conv_kernel_size)

    def update_recurrent_state(self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0, **_: Any) -> Tensor:
        """Take the state after a pass."""
        return self.states.at(layer_idx).became(recurrent_states)

    def is_recording_past(self, layer_idx: int) -> bool:
        """No: nothing is taken back."""
        return False
