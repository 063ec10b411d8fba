"""Attention of an engine's passes, for models built by their class: windows, caps and sinks of their layers count in the cache too."""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from lprl_workload.hf.attend import Attention, chosen
from lprl_workload.hf.by_position import chunk_of, last_chunk, tempered

SERVED = "lprl_served"
"""Name of this attention for transformers."""


def served_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    indices: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return ([B, Q, heads, dim], None) of query, key, value [B, heads, Q or K, dim]: an attention function of transformers.

    Without a mask tokens attend to themselves and what is before them (a prompt, or a whole text); with one ([B, 1, 1, K], added to
    scores) one token of each row attends to the first columns of its slot, as many as its mask leaves.
    `indices` [B, Q, n]: the keys an indexer chose (indexed.py).
    """
    if attention_mask is not None and sliding_window is not None:
        attention_mask = _last_columns(attention_mask, sliding_window)
        sliding_window = None
    if indices is not None and attention_mask is not None:
        attention_mask = attention_mask + chosen(indices, key.shape[2])
    chunk = chunk_of(module)
    if attention_mask is not None and chunk is not None and query.shape[2] == 1:
        attention_mask, chunk = last_chunk(attention_mask, chunk), None
    query = tempered(module, query)
    how = Attention(dropout, scaling, sliding_window, chunk, softcap, s_aux)
    return how.product(query, key, value, attention_mask).transpose(1, 2).contiguous(), None


def _last_columns(mask: Tensor, window: int) -> Tensor:
    """Return a mask that leaves of the columns a row sees the last `window`."""
    width = mask.shape[-1]
    if width <= window:
        return mask
    seen = (mask == 0).sum(-1, keepdim=True)
    return mask.masked_fill(torch.arange(width, device=mask.device) < seen - window, float("-inf"))


def register_served_attention() -> None:
    """Make `attn_implementation=SERVED` known to transformers; repeating it changes nothing."""
    AttentionInterface.register(SERVED, served_attention)
