"""Log-probabilities and entropies of response tokens under a causal language model, with bounded logits."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

LOGIT_ELEMENTS = 1 << 25
"""Logits computed at a time (float32: 128 MiB); more tokens go through the output head in chunks, recomputed backward."""


class Policy(nn.Module):
    """A transformers causal language model that returns log-probabilities of given tokens instead of logits."""

    def __init__(self, model: Any, recompute: bool) -> None:
        """Wrap `model`; `recompute` turns on activation recomputation of its decoder layers while training."""
        super().__init__()
        self.model = model
        if recompute:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})

    def forward(
        self, input_ids: Tensor, predictors: Tensor, targets: Tensor, temperature: float, entropy_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        """Return (log-probabilities [T], entropies [T]) in float32 of `targets` at the sampling temperature.

        Args:
            input_ids: [B, L], right-padded.
            predictors: [T] positions in the flattened [B * L] whose logits predict a target.
            targets: [T] token ids.
            temperature: logits are divided by it.
            entropy_gradient: whether entropies carry a gradient.

        """
        hidden = self.model.model(input_ids=input_ids, use_cache=False).last_hidden_state
        # index_select: its backward adds in index order on a CPU, the backward of x[i] in thread order.
        hidden = hidden.flatten(0, 1).index_select(0, predictors)
        rows = max(1, LOGIT_ELEMENTS // self.model.config.vocab_size)
        if hidden.shape[0] <= rows:
            return self._head(hidden, targets, temperature, entropy_gradient)
        parts = [
            checkpoint(self._head, h, t, temperature, entropy_gradient, use_reentrant=False)
            for h, t in zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
        ]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])

    def _head(self, hidden: Tensor, targets: Tensor, temperature: float, entropy_gradient: bool) -> tuple[Tensor, Tensor]:
        logits = self.model.lm_head(hidden)  # float32: hf/head.py
        logp = torch.log_softmax(logits / temperature if temperature != 1.0 else logits, dim=-1)
        chosen = logp.gather(1, targets.unsqueeze(1)).squeeze(1)
        basis = logp if entropy_gradient else logp.detach()
        return chosen, -(basis.exp() * basis).sum(dim=-1)
