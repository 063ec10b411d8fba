"""Attention of one layer with what some families have besides: a window, capped scores, sinks.

Queries are the last of the keys: query i of Q stands at key K - Q + i. Where none of the three is there, it is torch's own product, as it
is for the families that never have them.

Legend: B rows, h heads, g key heads, Q queries, K keys, d channels of a head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import dropout, scaled_dot_product_attention

from lprl_workload.hf import masks


@dataclass(frozen=True, slots=True)
class Attention:
    """How a layer attends."""

    dropout: float = 0.0
    scale: float | None = None
    """Of the scores; 1 / sqrt(d) for None."""
    window: int | None = None
    """Keys that a query sees at most, itself included."""
    chunk: int | None = None
    """Tokens of a chunk, counted from the first key: a query sees keys of its own only."""
    softcap: float | None = None
    """Scores s become softcap * tanh(s / softcap)."""
    sinks: Tensor | None = None
    """[h]: a score that takes part in each softmax and has no value."""

    def product(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return [B, h, Q, d] of q [B, h, Q, d], k and v [B, g, K, d]; causal where no mask (added to scores, [..., Q, K]) is given."""
        if self.window is not None and k.shape[2] > self.window:
            band = masks.band(q.shape[2], k.shape[2], self.window, q.device)
            mask = band if mask is None else mask + band
        if self.chunk is not None and k.shape[2] > self.chunk:
            band = masks.chunks(q.shape[2], k.shape[2], self.chunk, q.device)
            mask = band if mask is None else mask + band
        if self.softcap is None and self.sinks is None:
            return self._torch(q, k, v, mask)
        return self._spelt_out(q, k, v, causal(q.shape[2], k.shape[2], q.device) if mask is None else mask)

    def _torch(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        grouped = q.shape[1] != k.shape[1]
        if grouped and mask is not None and q.is_cuda:
            # With a mask, CUDA's kernels want as many key heads as query heads.
            k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
            grouped = False
        how = {"is_causal": True} if mask is None else {"attn_mask": mask.to(q.dtype)}
        return scaled_dot_product_attention(q, k, v, enable_gqa=grouped, dropout_p=self.dropout, scale=self.scale, **how)

    def _spelt_out(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        if q.shape[1] != k.shape[1]:
            k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
        scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if self.scale is None else self.scale)
        if self.softcap is not None:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        scores = scores.float() + mask
        if self.sinks is not None:
            sinks = self.sinks.float().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
            scores = torch.cat([scores, sinks], dim=-1)
        weights = scores.softmax(-1)[..., : k.shape[2]].to(q.dtype)
        return dropout(weights, self.dropout, training=self.dropout > 0) @ v


def causal(queries: int, keys: int, device: torch.device) -> Tensor:
    """Return what is added to scores [Q, K] so that each query sees itself and what is before it: 0 or -inf, float32."""
    return masks.band(queries, keys, keys, device)


def chosen(indices: Tensor, keys: int) -> Tensor:
    """Return what is added to scores [B, 1, Q, K] so that a query sees only the keys `indices` [B, Q, n] name: 0 or -inf, float32."""
    hidden = torch.full((*indices.shape[:2], keys), float("-inf"), device=indices.device)
    return hidden.scatter_(-1, indices.long(), 0.0)[:, None]
