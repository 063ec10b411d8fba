"""Logits -> next token and its log-probability."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lprl_workload.data import SamplingParams
from lprl_workload.rollout.seeds import uniforms

MAX_ELEMENTS = 1 << 24
"""Logits handled at a time: the float64 sums of a large vocabulary then take at most 128 MiB a tensor."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One step of B rows."""

    tokens: Tensor
    """int64 [B]."""
    logprobs: Tensor
    """float32 [B] at the sampling temperature, before top-k and top-p."""


def _kept(probs: Tensor, params: SamplingParams) -> Tensor:
    """Zero what top-k, then top-p drop from `probs` [B, V]; the likeliest token always stays, ties go to the lower id."""
    vocab = probs.shape[-1]
    if params.top_p >= 1.0 and (params.top_k is None or params.top_k >= vocab):
        return probs
    ordered, index = probs.sort(dim=-1, descending=True, stable=True)
    if params.top_k is not None:
        ordered[:, params.top_k :] = 0.0
    if params.top_p < 1.0:
        mass = ordered.cumsum(-1)
        # A token stays when the mass before it is short of top_p: the smallest set that reaches it.
        ordered[mass - ordered >= params.top_p * mass[:, -1:]] = 0.0
    return torch.zeros_like(probs).scatter_(-1, index, ordered)


def _draw(logits: Tensor, params: SamplingParams, seeds: Tensor, positions: Tensor) -> Draw:
    if params.temperature == 0:
        logprobs = logits.float().log_softmax(-1)
        tokens = logprobs.argmax(-1)
    else:
        logprobs = (logits.float() / params.temperature).log_softmax(-1)
        mass = _kept(logprobs.double().exp(), params).cumsum(-1)
        # Inverse of the cumulative distribution; `right` skips tokens of zero probability.
        wanted = uniforms(seeds, positions)[:, None] * mass[:, -1:]
        tokens = torch.searchsorted(mass, wanted, right=True)[:, 0].clamp_(max=logits.shape[-1] - 1)
    return Draw(tokens, logprobs.gather(-1, tokens[:, None])[:, 0])


def draw(logits: Tensor, params: SamplingParams, seeds: Tensor, positions: Tensor) -> Draw:
    """Draw the next token of every row.

    Args:
        logits: [B, V], any float dtype.
        params: temperature 0 takes the likeliest token (its log-probability is then reported at temperature 1).
        seeds: int64 [B], the random stream of each row.
        positions: int64 [B], the number of tokens the row has drawn before.

    """
    # In whole vectors: what a row draws must not depend on where a part begins (see scheduler.py).
    rows = max(32, MAX_ELEMENTS // logits.shape[-1] // 32 * 32)
    if len(logits) <= rows:
        return _draw(logits, params, seeds, positions)
    parts = [_draw(logits[i : i + rows], params, seeds[i : i + rows], positions[i : i + rows]) for i in range(0, len(logits), rows)]
    return Draw(torch.cat([p.tokens for p in parts]), torch.cat([p.logprobs for p in parts]))
