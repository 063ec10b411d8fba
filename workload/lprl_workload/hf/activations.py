"""FP8 activations as an engine computes them: quantised dynamically before every matrix product with FP8 weights."""

from typing import Any

import torch
from torch import Tensor, nn

from lprl_workload.quant.fp8_block import activation_fake_quantize


class _FakeQuantize(torch.autograd.Function):
    """Bit-exact fake quantisation forward (`x + (q - x)` would round), identity backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: int) -> Tensor:
        return activation_fake_quantize(x.detach(), group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def fake_quantize_activations(x: Tensor, group: int | None) -> Tensor:
    """Return x [..., K] as FP8 products see it, gradient straight through; x itself when `group` is None."""
    if group is None or not x.numel():
        return x
    out: Tensor = _FakeQuantize.apply(x, group or x.shape[-1])  # type: ignore[no-untyped-call]
    return out


class InputQuantizer:
    """Forward pre-hook of linear layers: fake-quantises their input, once for layers that share it (q, k, v; gate, up)."""

    def __init__(self, group: int) -> None:
        """Quantise in groups of `group` channels (WHOLE_ROW: per token)."""
        self._group = group
        self._last: tuple[Tensor, int, Tensor] | None = None

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the layer's arguments with the first one quantised."""
        x = args[0]
        last = self._last
        tracked = x.requires_grad and torch.is_grad_enabled()
        # Inference tensors have no version counter; in inference nothing changes a layer's input between its readers.
        version = 0 if x.is_inference() else x._version
        if last is None or last[0] is not x or last[1] != version or last[2].requires_grad != tracked:
            last = self._last = (x, version, fake_quantize_activations(x, self._group))
        return (last[2], *args[1:])

    def forget(self, module: nn.Module, args: object, output: object) -> None:
        """Forward hook of the model: drop the kept input, which would hold memory between passes."""
        self._last = None
