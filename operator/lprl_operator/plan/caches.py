"""Bytes an engine keeps of a sequence while it generates, by what each layer keeps: keys and values, latents, windows, states."""

from functools import cache

from lprl_api.model.model_shape import Cache, ModelShape
from lprl_api.model.weight_rows import layers_of


@cache
def caches(shape: ModelShape) -> tuple[tuple[int, Cache], ...]:
    """Return (layers, what each of them keeps)."""
    if shape.layout is not None:
        return tuple((len(layers_of(part.layers)), part.cache) for part in shape.layout.parts if part.cache is not None)
    if shape.mla is not None:
        return ((shape.layers, Cache(channels=shape.mla.kv_lora_rank + shape.mla.qk_rope_head_dim)),)
    return ((shape.layers, Cache(heads=shape.kv_heads, channels=2 * shape.head_dim)),)


def sequence_bytes(shape: ModelShape, tokens: int, tensor: int, width: int) -> int:
    """Return what one slot of `tensor` keeps of a sequence of `tokens`, with `width` bytes an element of the cache."""
    return state_bytes(shape, tensor) + sum(layers * _tokens_bytes(kept, tokens, tensor, width) for layers, kept in caches(shape))


def state_bytes(shape: ModelShape, tensor: int) -> int:
    """Return the part of it that does not depend on the length: states of linear layers."""
    return sum(layers * (kept.state * _share(kept, tensor) // (kept.heads or 1)) for layers, kept in caches(shape) if kept.state)


def _tokens_bytes(kept: Cache, tokens: int, tensor: int, width: int) -> int:
    entries = -(-min(tokens, kept.window or tokens) // kept.every)
    return entries * (kept.channels * _share(kept, tensor) * width + kept.bytes)


def _share(kept: Cache, tensor: int) -> int:
    """Return the heads one slot keeps: at least one, all where they are not shared out."""
    return max(1, kept.heads // tensor)
