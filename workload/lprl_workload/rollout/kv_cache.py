"""A KV cache that appends in place: amortised constant work per token, rows can be repeated and dropped."""

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from lprl_api.model.model_shape import ModelShape

FIRST_SPARE = 16
"""Spare positions of the first allocation; every later one adds half of what is there."""


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, [B, heads, length, dim], views into buffers with spare room at the end.

    transformers' own DynamicLayer copies the whole cache for every token.
    """

    def __init__(self) -> None:
        super().__init__()
        self._buffers: list[Tensor] = []
        self._length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take dtype and device from the first states."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Append [B, heads, new, dim] states; returns all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self._length + key_states.shape[-2]
        if not self._buffers or length > self._buffers[0].shape[-2]:
            self._grow(key_states, value_states, length + max(FIRST_SPARE, length // 2))
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, self._length : length].copy_(states)
        self._set(self._buffers, length)
        return self.keys, self.values

    def _grow(self, key_states: Tensor, value_states: Tensor, capacity: int) -> None:
        grown = []
        for position, states in enumerate((key_states, value_states)):
            buffer = states.new_empty((states.shape[0], states.shape[1], capacity, states.shape[3]))
            if self._buffers:
                buffer[:, :, : self._length].copy_(self._buffers[position][:, :, : self._length])
            grown.append(buffer)
        self._buffers = grown

    def _set(self, buffers: list[Tensor], length: int) -> None:
        self._buffers, self._length = buffers, length
        self.keys, self.values = (buffer[:, :, :length] for buffer in buffers)

    def select(self, rows: Tensor) -> None:
        """Make row i the former row rows[i]; rows may repeat (one prefill for a group) or be missing (finished)."""
        self._set([buffer.index_select(0, rows) for buffer in self._buffers], self._length)


class GrowingCache(Cache):  # type: ignore[misc]
    """A transformers cache of GrowingLayers."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=GrowingLayer)

    def select(self, rows: Tensor) -> None:
        """Keep, repeat or drop rows in every layer; `rows` int64 on the cache's device."""
        for layer in self.layers:
            layer.select(rows)


def bytes_per_token(shape: ModelShape, element_bytes: int) -> int:
    """Return the bytes one position of one row takes in the cache, over all layers.

    transformers caches MLA's keys and values decompressed, so every head counts.
    """
    if shape.mla:
        channels = shape.heads * (shape.mla.qk_nope_head_dim + shape.mla.qk_rope_head_dim + shape.mla.v_head_dim)
    else:
        channels = 2 * shape.kv_heads * shape.head_dim
    return shape.layers * channels * element_bytes


def free_cache_bytes(device: torch.device, fraction: float) -> int:
    """Return what the cache may take: `fraction` of the device's free memory, 2 GiB on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * fraction)
    return 2 * 1024**3
