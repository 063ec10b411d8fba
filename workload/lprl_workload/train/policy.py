"""Log-probabilities and entropies of response tokens under a causal language model, with bounded logits."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lprl_workload.hf.indexed import use_packed_indexers
from lprl_workload.hf.linear import use_fast_linear
from lprl_workload.hf.logits import logits_of
from lprl_workload.hf.packed_attention import use_packed_attention
from lprl_workload.hf.packed_linear import use_packed_linear
from lprl_workload.train.batch import MicroBatch

LOGIT_ELEMENTS = 1 << 26
"""Logits computed at a time (float32: 256 MiB); more tokens go through the output head in chunks, recomputed backward."""


class Policy(nn.Module):
    """A transformers causal language model that returns log-probabilities of given tokens instead of logits."""

    def __init__(self, model: Any, recompute: bool) -> None:
        """Wrap `model`; `recompute` turns on activation recomputation of its decoder layers while training."""
        super().__init__()
        self.model = model
        use_packed_attention(model)
        use_packed_linear(model)
        use_packed_indexers(model)
        use_fast_linear(model)
        if recompute:
            plain = {"use_reentrant": False}
            if hasattr(model, "activation_checkpointing_enable"):
                model.activation_checkpointing_enable(activation_checkpointing_kwargs=plain)
            else:  # transformers before 5.20, which SGLang pins
                model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=plain)

    def forward(self, batch: MicroBatch, temperature: float, entropy_gradient: bool) -> tuple[Tensor, Tensor]:
        """Return (log-probabilities [T], entropies [T]) in float32 of the batch's targets at the sampling temperature.

        Args:
            batch: the samples' tokens.
            temperature: logits are divided by it.
            entropy_gradient: whether entropies carry a gradient.

        """
        decoder = self.model.model
        output = decoder(input_ids=batch.input_ids, position_ids=batch.positions, layout=batch.layout, use_cache=False)
        # index_select: its backward adds in index order on a CPU, the backward of x[i] in thread order.
        hidden = output.last_hidden_state[0].index_select(0, batch.predictors)
        rows = max(1, LOGIT_ELEMENTS // self.model.config.vocab_size)
        if hidden.shape[0] <= rows:
            return self._head(hidden, batch.rows, batch.targets, temperature, entropy_gradient)
        counts = torch.bincount(batch.rows // rows).tolist()
        pieces = zip(torch.split(hidden, rows), torch.split(batch.rows, counts), torch.split(batch.targets, counts), strict=True)
        parts = [
            checkpoint(self._head, h, r - number * rows, t, temperature, entropy_gradient, use_reentrant=False)
            for number, (h, r, t) in enumerate(pieces)
        ]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])

    def _head(self, hidden: Tensor, rows: Tensor, targets: Tensor, temperature: float, entropy_gradient: bool) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies [T] of `targets`, each predicted by its row of `hidden`."""
        logits = logits_of(self.model, hidden)  # float32: hf/head.py
        logp = torch.log_softmax(logits / temperature if temperature != 1.0 else logits, dim=-1)
        chosen = logp.flatten().index_select(0, rows * logp.shape[-1] + targets)
        basis = logp if entropy_gradient else logp.detach()
        return chosen, -(basis.exp() * basis).sum(dim=-1).index_select(0, rows)
