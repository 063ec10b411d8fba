"""Linear attention over sequences laid end to end (packed_attention.py): a layer's state must not run from one sequence into the next.

The layer's own forward pass runs on the rows of each block. Rows that are padded on the right need no mask, because nothing flows back.
Of families it runs on the prompts once; their continuations begin with the state and the last convolution inputs of their prompt, and the
gradient flows through both.

A layer is one of transformers' gated delta layers: its forward takes `cache_params`, and asks that for states (`get_conv_state`, ...).
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lprl_workload.hf.packed_attention import Families, Layout


def has_states(model: nn.Module) -> bool:
    """Return whether a model has layers with a state for each sequence."""
    return any(keeps_state(module) for module in model.modules())


def keeps_state(module: nn.Module) -> bool:
    """Return whether a module is a layer of linear attention, as transformers writes them."""
    return "cache_params" in inspect.signature(type(module).forward).parameters and hasattr(module, "conv1d")


def use_packed_linear(model: nn.Module) -> None:
    """Have a trained model's layers of linear attention keep sequences apart where they are given a `layout`, in place."""
    for module in model.modules():
        if keeps_state(module):
            module.forward = partial(_packed, module.forward)


def _packed(own: Callable[..., Tensor], hidden_states: Tensor, layout: Layout | None = None, **kwargs: Any) -> Tensor:
    """Return a layer's output [1, N, H]."""
    if layout is None:
        return own(hidden_states=hidden_states, **kwargs)
    kwargs |= {"cache_params": None, "attention_mask": None}
    sizes = [size for block in layout for size in block.sizes]
    parts = torch.split(hidden_states[0], sizes)
    found: list[Tensor] = []
    for block in layout:
        mine = parts[len(found) : len(found) + len(block.sizes)]
        if isinstance(block, Families):
            found += _families(own, block, mine, kwargs)
        else:
            found.append(block.rectangle.gathered(own(hidden_states=block.rectangle.spread(mine[0]), **kwargs)))
    return torch.cat(found).unsqueeze(0)


def _families(own: Callable[..., Tensor], block: Families, parts: tuple[Tensor, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    taken = Taken()
    prompts = own(hidden_states=block.prompts.spread(parts[0]), **kwargs | {"cache_params": taken})
    rows = block.continuations.spread(parts[1])
    # A single token would go through the layer's code for drawn tokens, which writes into states.
    width = rows.shape[1]
    wide = pad(rows, (0, 0, 0, 1)) if width == 1 else rows
    each = rows.shape[0] // block.prompts.rows
    answers = own(hidden_states=wide, **kwargs | {"cache_params": taken.given(each)})
    return [block.prompts.gathered(prompts), block.continuations.gathered(answers[:, :width])]


class Taken:
    """Stands for transformers' cache: it keeps what a pass leaves behind, and gives what it was given."""

    def __init__(self, conv: Tensor | None = None, state: Tensor | None = None) -> None:
        self._given = conv, state
        self._left: tuple[Tensor | None, Tensor | None] = (None, None)

    def given(self, each: int) -> "Taken":
        """Return the cache of the passes that go on, `each` for a row of this one."""
        conv, state = (None if left is None else left.repeat_interleave(each, dim=0) for left in self._left)
        return Taken(conv, state)

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """Return the last inputs of the convolution, [B, channels, kernel]."""
        return self._given[0]

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """Return the state, [B, heads, key channels, value channels]."""
        return self._given[1]

    def is_recording_past(self, layer_idx: int) -> bool:
        """No."""
        return False

    def update_conv_state(self, conv_states: Tensor, layer_idx: int, state_idx: int = 0, conv_kernel_size: int = 0, **_: Any) -> Tensor:
        """Take [B, channels, T] inputs; returns them behind those that were given."""
        whole = conv_states if self._given[0] is None else torch.cat([self._given[0], conv_states], dim=-1)
        self._left = pad(whole, (max(0, conv_kernel_size - whole.shape[-1]), 0))[..., -conv_kernel_size:], self._left[1]
        return whole

    def update_recurrent_state(self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0, **_: Any) -> Tensor:
        """Take the state after the last token."""
        self._left = self._left[0], recurrent_states
        return recurrent_states
