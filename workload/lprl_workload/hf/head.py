"""The output head in float32, in trainer, reference and engine alike.

A model in BF16 rounds its logits to BF16: near 20 that is a grid of 1/8, and trainer and engine round differently. Measured with the
real engine, float32 logits on both sides take 41 % off the mismatch (K3) of BF16 and 31 to 37 % off INT4's. Weights and hidden
states stay BF16; only the product keeps its float32 sum.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Product(torch.autograd.Function):
    """hidden [T, H] x weight [V, H] -> float32 logits [T, V] of BF16 factors on a GPU, without float32 copies of either."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        return torch.mm(hidden, weight.t(), out_dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        hidden, weight = ctx.saved_tensors
        grad = grads[0].to(weight.dtype)
        needs_hidden, needs_weight = ctx.needs_input_grad
        return (grad @ weight if needs_hidden else None), (grad.t() @ hidden if needs_weight else None)


def float32_product(hidden: Tensor, weight: Tensor) -> Tensor:
    """Return float32 logits [T, V] of hidden states [T, H] and weights [V, H], summed in float32 whatever they are."""
    if hidden.is_cuda and hidden.dtype == weight.dtype == torch.bfloat16:
        found: Tensor = _Product.apply(hidden, weight)  # type: ignore[no-untyped-call]
        return found
    return functional.linear(hidden.float(), weight.float())


def weight_gradient(grad: Tensor, hidden: Tensor) -> Tensor:
    """Return the float32 gradient [V, H] of a head's weights, of logits' gradient [T, V] and hidden states [T, H] of one dtype."""
    return float32_product(grad.t(), hidden.t())


class Float32Head(nn.Linear):
    """A Linear whose output is float32 whatever its weights are."""

    product: Callable[[Tensor, Tensor, Tensor | None], Tensor] = staticmethod(functional.linear)
    """How float32 factors are multiplied: a trainer's head has a faster one (linear.py)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Return float32 [..., V] of [..., H]."""
        if self.weight.dtype == torch.float32 and input.dtype == torch.float32:
            return self.product(input, self.weight, self.bias)
        if self.bias is None:
            return float32_product(input.reshape(-1, input.shape[-1]), self.weight).view(*input.shape[:-1], -1)
        return functional.linear(input.float(), self.weight.float(), self.bias.float())


def use_float32_head(model: nn.Module) -> None:
    """Make a causal language model's `lm_head` a Float32Head, in place; its parameters (tied ones too) stay the same objects."""
    head = model.get_submodule("lm_head")
    if type(head) is nn.Linear:
        head.__class__ = Float32Head
