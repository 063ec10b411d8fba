"""Float32 products of linear layers on a CPU, through oneDNN.

PyTorch multiplies float32 matrices with MKL, which on a CPU of another maker than its own leaves half of the vector width unused;
oneDNN asks the CPU what it can do. Measured on a CPU with AVX-512 (Zen 5): twice as fast, forward and backward. The sums are the
same float32 sums in another order, equal from run to run.
"""

import platform
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lprl_workload.hf.head import Float32Head

WORTH_ELEMENTS = 1 << 16
"""Weights below this many elements stay with MKL: oneDNN's overhead of a call is larger than its gain."""
AVAILABLE = platform.machine().lower() in ("x86_64", "amd64") and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x [..., K] times weight [N, K] transposed, plus bias [N]: torch's linear, faster for large float32 weights on a CPU."""
    if not AVAILABLE or x.device.type != "cpu" or weight.numel() < WORTH_ELEMENTS or not x.numel():
        return functional.linear(x, weight, bias)
    if x.dtype != torch.float32 or weight.dtype != torch.float32:
        return functional.linear(x, weight, bias)
    rows: Tensor = _Product.apply(x.reshape(-1, x.shape[-1]), weight, bias)  # type: ignore[no-untyped-call]
    return rows.view(*x.shape[:-1], weight.shape[0])


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return a [M, K] times b [N, K] transposed, plus bias [N]."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
    return out


class _Product(torch.autograd.Function):
    """x [M, K] times weight [N, K] transposed, plus bias [N], and its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x.detach(), weight.detach(), None if bias is None else bias.detach())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            _product(grad, weight.t()) if needs_x else None,
            _product(grad.t(), x.t()) if needs_weight else None,
            grad.sum(dim=0) if needs_bias else None,
        )


class Linear(nn.Linear):
    """torch's Linear with these products."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Return [..., N] of [..., K]."""
        return linear(input, self.weight, self.bias)


def use_fast_linear(model: nn.Module) -> None:
    """Have a trained model's linear layers, and its head, multiply so, in place; parameters stay the same objects.

    For trainers: an engine needs a row's bits to be the same in any company, which MKL gives and oneDNN does not promise.
    """
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
        elif isinstance(module, Float32Head):
            module.product = linear
