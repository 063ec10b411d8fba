"""compressed-tensors: packed INT4 by group, FP8 by channel and by tensor, with the quantizer's dequantisation."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from sglang.srt.layers.quantization.compressed_tensors.compressed_tensors import CompressedTensorsConfig
from sglang.srt.layers.quantization.compressed_tensors.schemes import compressed_tensors_w8a8_fp8 as w8a8
from sglang.srt.layers.quantization.compressed_tensors.schemes import compressed_tensors_w8a8_fp8_moe as w8a8_moe
from sglang.srt.layers.quantization.compressed_tensors.schemes import compressed_tensors_w8a16_fp8 as w8a16
from sglang.srt.layers.quantization.compressed_tensors.schemes import compressed_tensors_wNa16 as wna16
from sglang.srt.layers.quantization.compressed_tensors.schemes import compressed_tensors_wNa16_moe as wna16_moe
from torch import Tensor

from lprl_api.model.formats.base import WHOLE_ROW
from lprl_sglang_cpu.arithmetic import product
from lprl_sglang_cpu.moe import LoopedExperts
from lprl_workload.quant.fp8_block import dequantize_fp8
from lprl_workload.quant.int4_group import PER_WORD, dequantize_int4, unpack


class _AsLoaded:
    """What was loaded is what is computed with, so a reload is a first load."""

    def process_weights_after_loading(self, layer: Any) -> None:
        """Nothing."""


class _Linear(_AsLoaded, ABC):
    """A scheme for linear layers."""

    @abstractmethod
    def values(self, layer: Any) -> tuple[Tensor, int | None]:
        """Return the weight as an engine computes with it, [N, K], and the group of its activations."""

    def apply_weights(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return x times the layer's weight."""
        weight, group = self.values(layer)
        return product(x, weight, bias, group)


class Int4Linear(_Linear, wna16.CompressedTensorsWNA16):
    """A linear layer with packed INT4 weights."""

    def values(self, layer: Any) -> tuple[Tensor, None]:
        """See _Linear; bfloat16."""
        return int4_values(layer.weight_packed.data, layer.weight_scale.data), None


class Int4Experts(LoopedExperts, wna16_moe.CompressedTensorsWNA16MoE):
    """Routed experts with packed INT4 weights, which SGLang holds transposed."""

    def apply_weights(self, layer: Any, dispatch_output: Any) -> Any:
        """Return the sum of the experts."""

        def weights(expert: int) -> tuple[Tensor, Tensor]:
            return (
                int4_values(layer.w13_weight_packed.data[expert].t(), layer.w13_weight_scale.data[expert].t()),
                int4_values(layer.w2_weight_packed.data[expert].t(), layer.w2_weight_scale.data[expert].t()),
            )

        return self.combined(dispatch_output, weights, None)


class Fp8Linear(_Linear, w8a8.CompressedTensorsW8A8Fp8):
    """A linear layer with FP8 weights, one scale per channel or per part of a merged matrix, and FP8 activations by token."""

    def values(self, layer: Any) -> tuple[Tensor, int | None]:
        """See _Linear; float32."""
        return scaled(layer.weight.data, layer.weight_scale.data, layer.logical_widths), WHOLE_ROW


class Fp8WeightOnlyLinear(_Linear, w8a16.CompressedTensorsW8A16Fp8):
    """The same with activations as they are."""

    def values(self, layer: Any) -> tuple[Tensor, None]:
        """See _Linear; float32."""
        return scaled(layer.weight.data, layer.weight_scale.data, layer.logical_widths), None


class Fp8Experts(LoopedExperts, w8a8_moe.CompressedTensorsW8A8Fp8MoE):
    """Routed experts with FP8 weights by channel, and FP8 activations by token."""

    def apply_weights(self, layer: Any, dispatch_output: Any) -> Any:
        """Return the sum of the experts."""

        def weights(expert: int) -> tuple[Tensor, Tensor]:
            return (
                scaled(layer.w13_weight.data[expert], layer.w13_weight_scale.data[expert], None),
                scaled(layer.w2_weight.data[expert], layer.w2_weight_scale.data[expert], None),
            )

        return self.combined(dispatch_output, weights, WHOLE_ROW)


_OURS: dict[type, type] = {
    wna16.CompressedTensorsWNA16: Int4Linear,
    wna16_moe.CompressedTensorsWNA16MoE: Int4Experts,
    w8a8.CompressedTensorsW8A8Fp8: Fp8Linear,
    w8a16.CompressedTensorsW8A16Fp8: Fp8WeightOnlyLinear,
    w8a8_moe.CompressedTensorsW8A8Fp8MoE: Fp8Experts,
}
for _theirs, _mine in _OURS.items():
    _mine.__name__ = _theirs.__name__  # SGLang's loaders ask for a scheme's name to know how it wants its weights


class CpuCompressedConfig(CompressedTensorsConfig):
    """A `quantization_config` of quant_method compressed-tensors."""

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        """See SGLang; float32, too."""
        return [torch.float32, torch.bfloat16, torch.float16]

    def _check_scheme_supported(self, min_capability: int, error: bool = True) -> bool:
        """No GPU is asked what it can."""
        return True

    def get_linear_scheme(self, *args: Any, **kwargs: Any) -> Any:
        """See SGLang: which scheme a layer has is its decision, how it computes is ours."""
        return _ours(super().get_linear_scheme(*args, **kwargs))

    def get_moe_scheme(self, *args: Any, **kwargs: Any) -> Any:
        """See get_linear_scheme."""
        return _ours(super().get_moe_scheme(*args, **kwargs))


def _ours(scheme: Any) -> Any:
    if scheme is None:
        return None
    if type(scheme) not in _OURS:
        raise ValueError(f"lprl-cpu: {type(scheme).__name__} has no arithmetic here; served are {[c.__name__ for c in _OURS]}")
    # The scheme as SGLang made it from config.json, with our methods: its constructors differ from release to release.
    ours = _OURS[type(scheme)]
    made: Any = object.__new__(ours)
    made.__dict__.update(scheme.__dict__)
    return made


def int4_values(packed: Tensor, scale: Tensor) -> Tensor:
    """Return the weight of packed [N, K/8] and scale [N, K/G] as an engine computes with it, bfloat16 [N, K]."""
    return dequantize_int4(unpack(packed, packed.shape[-1] * PER_WORD), scale)


def scaled(codes: Tensor, scale: Tensor, widths: list[int] | None) -> Tensor:
    """Return codes [N, K] times a scale per row [N, 1], or per part of `widths` rows; float32."""
    if widths is not None and scale.numel() == len(widths):
        scale = scale.flatten().repeat_interleave(torch.tensor(widths, device=scale.device)).unsqueeze(-1)
    return dequantize_fp8(codes, scale.reshape(-1, 1), (1, codes.shape[-1]))
