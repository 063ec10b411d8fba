"""A micro-batch on its way through Megatron's layers: positions and blocks of attention of tokens that lie end to end.

Megatron hands `packed_seq_params` to every layer of every stage as it is, so it carries ours: attention by our own blocks (prompts that
samples share are there once), rotary angles by each token's position in its own sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from lprl_workload.hf.attend import Attention, causal
from lprl_workload.hf.packed_attention import Layout, Whole, packed_attention
from lprl_workload.train.megatron.context import Cut


@dataclass
class PackedTokens(PackedSeqParams):  # type: ignore[misc]
    """Of one micro-batch; `qkv_format` stays None, so that Megatron treats its tokens as one sequence."""

    layout: Layout = ()
    """Which tokens attend to which."""
    positions: Tensor | None = None
    """int64 [N]: of each token in its own sequence."""
    cut: Cut | None = None
    """What this context rank has of it, where sequences are cut; there is no layout then."""
    chosen: dict[int, list[Tensor]] = field(default_factory=dict)
    """By number of the layer that chose them: the keys queries attend to, where not all count (indexed.py)."""

    @cached_property
    def ends(self) -> tuple[Tensor, int] | None:
        """Where sequences begin and end, int32 [sequences + 1], and the tokens of the longest; None where samples share prompts."""
        whole = [block for block in self.layout if isinstance(block, Whole)]
        if len(whole) < len(self.layout) or not whole or self.positions is None:
            return None
        lengths = [length for block in whole for length in block.lengths]
        ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
        return ends.to(self.positions.device, non_blocking=True), max(lengths)


class PackedAttention(MegatronModule):  # type: ignore[misc]
    """Core attention by the blocks of a micro-batch (hf/packed_attention.py): the torch trainer's arithmetic."""

    def __init__(self, config: TransformerConfig, softmax_scale: float | None = None, **_: Any) -> None:
        """Take of what Megatron builds a core attention with what counts here."""
        super().__init__(config=config)
        self._scale, self._dropout = softmax_scale, config.attention_dropout

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, packed_seq_params: PackedTokens, **_: Any
    ) -> Tensor:
        """Return [N, 1, heads * dim] of query [N, 1, heads, dim], key and value [N, 1, groups, dim]; latent attention leaves the 1 out."""
        return self._attended(query, key, value, packed_seq_params)

    def _attended(self, query: Tensor, key: Tensor, value: Tensor, packed: PackedTokens, indices: Sequence[Tensor] | None = None) -> Tensor:
        """Return it; `indices`: of each part of the layout, the keys its queries attend to, where not all before them count."""
        dropout = self._dropout if self.training else 0.0
        if packed.cut is not None:
            return _attended_by_chunk(query, key, value, packed.cut, Attention(dropout, self._scale))
        q, k, v = ((x if x.dim() == 4 else x.unsqueeze(1)).permute(1, 2, 0, 3) for x in (query, key, value))
        found, _none = packed_attention(self, q, k, v, None, dropout, self._scale, layout=packed.layout, indices=indices)
        return found.transpose(0, 1).flatten(2)


def _gathered(key: Tensor, value: Tensor, cut: Cut) -> tuple[Tensor, Tensor]:
    """Return the keys and values of the whole micro-batch, [tokens, groups, dim] each, of this rank's [tokens, groups, dim]."""
    both = torch.cat([key, value], dim=-1)
    every = gather_from_sequence_parallel_region(both, group=parallel_state.get_context_parallel_group())
    keys, values = torch.split(every.index_select(0, cut.gathered), [key.shape[-1], value.shape[-1]], dim=-1)
    return keys, values


def _attended_by_chunk(query: Tensor, key: Tensor, value: Tensor, cut: Cut, how: Attention) -> Tensor:
    """Return [N, 1, heads * dim] of this rank's queries, chunk by chunk: queries are the last of the keys they see."""
    q, k, v = (x.squeeze(1) if x.dim() == 4 else x for x in (query, key, value))
    keys, values = _gathered(k, v, cut)
    found = []
    for chunk, mine in zip(cut.chunks, torch.split(q, [chunk.queries for chunk in cut.chunks]), strict=True):
        seen = slice(chunk.begin, chunk.end)
        mask = None if chunk.queries == chunk.end - chunk.begin else causal(chunk.queries, chunk.end - chunk.begin, q.device)
        laid = [x.transpose(0, 1)[None] for x in (mine, keys[seen], values[seen])]
        found.append(how.product(laid[0], laid[1], laid[2], mask)[0].transpose(0, 1))
    return torch.cat(found).flatten(1).unsqueeze(1)


class PackedRotary(nn.Module):
    """Rotary angles of a micro-batch's positions, in place of Megatron's own module, which counts from zero."""

    def __init__(self, frequencies: Tensor, latent: bool) -> None:
        """Take the inverse frequencies [dim / 2], float32, as transformers computes them, and whether latent attention asks."""
        super().__init__()
        self._frequencies, self._latent = frequencies, latent

    def get_rotary_seq_len(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the positions; Megatron passes on what it takes for a length."""
        packed: PackedTokens = kwargs.get("packed_seq_params") or args[-1]
        assert packed.positions is not None
        return packed.positions

    def forward(self, positions: Tensor, **_: Any) -> Tensor:
        """Return angles, float32 [N, 1, 1, dim]; for latent attention, whose tokens have no batch dimension, [N, 1, dim]."""
        angles = torch.outer(positions.float(), self._frequencies)
        wide = torch.cat([angles, angles], dim=-1)[:, None]
        return wide if self._latent else wide[:, None]


class RmsNorm(nn.Module):
    """RMSNorm that says to Megatron that its gradient is a share under sequence parallelism; Megatron's own for CPUs refuses it."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-6, **_: Any) -> None:
        """Take what Megatron builds a norm with; its weight is not initialised."""
        super().__init__()
        self._eps = eps
        self.weight = nn.Parameter(torch.empty(hidden_size, dtype=config.params_dtype))
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        """Return the norm over the last dimension, as transformers computes it: in float32, rounded, then scaled."""
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self._eps)
        return self.weight * normed.to(x.dtype)


class ShiftedNorm(RmsNorm):
    """A norm whose weight is kept less 1 (Qwen3-Next, Qwen3.5), and applied before the result is rounded."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the norm over the last dimension."""
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self._eps)
        return (normed * (1.0 + self.weight.float())).to(x.dtype)


LATENT_EPSILON = 1e-6
"""Of norms of what latent attention compresses: transformers' classes take their default there, whatever rms_norm_eps says."""


class LatentNorm(RmsNorm):
    """A norm of what latent attention compresses."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-6, **_: Any) -> None:
        """Take what Megatron builds a norm with, but for its epsilon."""
        super().__init__(config, hidden_size, LATENT_EPSILON)


class HeadNorm(RmsNorm):
    """A norm of heads: every tensor rank has its own heads, and so a share of the gradient."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-6, **_: Any) -> None:
        """Take what Megatron builds a norm with."""
        super().__init__(config, hidden_size, eps)
        self.weight.of_own_heads = True  # type: ignore[attr-defined]


class ShiftedHeadNorm(HeadNorm, ShiftedNorm):
    """A norm of heads whose weight is kept less 1."""
