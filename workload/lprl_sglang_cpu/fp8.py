"""Block FP8 (quant_method fp8): weights stay codes and scales; a product dequantises them with the quantizer's function.

The classes bear SGLang's own names: its weight loaders know a method by the name of its class.
"""

from typing import Any

import torch
from sglang.srt.layers.quantization import fp8
from torch import Tensor

from lprl_api.model.formats.base import WEIGHT_ONLY
from lprl_sglang_cpu.arithmetic import product
from lprl_sglang_cpu.moe import LoopedExperts
from lprl_workload.quant.fp8_block import dequantize_fp8


class CpuFp8Config(fp8.Fp8Config):
    """A `quantization_config` of quant_method fp8 with blocks."""

    weight_only = False
    """Activations stay as they are: our converter's mark in config.json, which a GPU engine is told by a switch."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """See SGLang. Raises ValueError for scales that are not by block."""
        made = super().from_config(config)
        if made.weight_block_size is None:
            raise ValueError("lprl-cpu: quant_method fp8 needs weight_block_size; one scale a weight is served as compressed-tensors")
        made.weight_only = bool(config.get(WEIGHT_ONLY))
        return made

    @property
    def activation_group(self) -> int | None:
        """See Format.activation_group."""
        return None if self.weight_only else int(self.weight_block_size[1])

    @classmethod
    def get_supported_act_dtypes(cls) -> list[torch.dtype]:
        """See SGLang; float32, too."""
        return [torch.float32, torch.bfloat16, torch.half]

    def get_quant_method(self, layer: Any, prefix: str) -> Any:
        """See SGLang: which layers are quantised is its decision, how is ours."""
        method = super().get_quant_method(layer, prefix)
        if type(method) is fp8.Fp8LinearMethod:
            return Fp8LinearMethod(self)
        if type(method) is fp8.Fp8MoEMethod:
            return Fp8MoEMethod(self)
        return method


class Fp8LinearMethod(fp8.Fp8LinearMethod):
    """A linear layer with block FP8 weights."""

    def process_weights_after_loading(self, layer: Any) -> None:
        """Nothing: what was loaded is what is computed with, so a reload is a first load."""

    def apply(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return x times the layer's weight."""
        weight, group = self.values(layer)
        return product(x, weight, bias, group)

    def values(self, layer: Any) -> tuple[Tensor, int | None]:
        """Return the weight as an engine computes with it, float32 [N, K], and the group of its activations."""
        block = tuple(self.quant_config.weight_block_size)
        return dequantize_fp8(layer.weight.data, layer.weight_scale_inv.data, block), self.quant_config.activation_group


class Fp8MoEMethod(LoopedExperts, fp8.Fp8MoEMethod):
    """Routed experts with block FP8 weights."""

    def apply(self, layer: Any, dispatch_output: Any) -> Any:
        """Return the sum of the experts."""
        block = tuple(self.quant_config.weight_block_size)

        def weights(expert: int) -> tuple[Tensor, Tensor]:
            return (
                dequantize_fp8(layer.w13_weight.data[expert], layer.w13_weight_scale_inv.data[expert], block),
                dequantize_fp8(layer.w2_weight.data[expert], layer.w2_weight_scale_inv.data[expert], block),
            )

        return self.combined(dispatch_output, weights, self.quant_config.activation_group)
