"""FP8 activations as an engine computes them: quantised dynamically before every matrix product with FP8 weights."""

from typing import Any

import torch
from torch import Tensor, nn

from lprl_api.model.formats import Fp8Block, Fp8Channel, Fp8Tensor, WeightFormat
from lprl_workload.quant.fp8_block import activation_fake_quantize

WHOLE_ROW = 0
"""Group that means one scale per token (channel and tensor strategies); positive groups count channels; None is off."""


def activation_group(fmt: WeightFormat) -> int | None:
    """Return the channels that share one activation scale under `fmt`: 128, WHOLE_ROW, or None where activations stay high precision."""
    if isinstance(fmt, Fp8Block | Fp8Channel | Fp8Tensor) and fmt.activations == "none":
        return None
    match fmt:
        case Fp8Block():
            return fmt.block_size[1]
        case Fp8Channel() | Fp8Tensor():
            return WHOLE_ROW
        case _:
            return None


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
