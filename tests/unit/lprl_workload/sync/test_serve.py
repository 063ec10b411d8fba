"""Served tensors are the quantizer's own bytes; the error is the error of exactly those."""

import math

import pytest
import torch

from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.spec.precision import Scope
from lprl_workload.data import NamedTensor
from lprl_workload.quant.scheme import dequantize, quantize
from lprl_workload.quant.select import Selection
from lprl_workload.sync.serve import ErrorSum, served_tensors

SHAPE = ModelShape(
    architecture="Qwen3ForCausalLM", family="qwen3", layers=1, hidden=128, heads=2, kv_heads=1, head_dim=64, ffn=192, vocab=50,
    tied_embeddings=False,
)  # fmt: skip
Q = "model.layers.0.self_attn.q_proj.weight"
NORM = "model.norm.weight"
FORMATS: list[WeightFormat] = [Fp8Block(), Fp8Channel(), Fp8Tensor(), Int4Group(group_size=32, scope=Scope.ALL_LINEAR)]


def weights() -> list[NamedTensor]:
    g = torch.Generator().manual_seed(1)
    return [
        NamedTensor(Q, torch.randn(130, 128, generator=g, dtype=torch.float32).bfloat16()),
        NamedTensor(NORM, torch.ones(128, dtype=torch.bfloat16)),
    ]


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f.kind)
def test_served_bytes_are_the_quantizers(fmt: WeightFormat) -> None:
    error = ErrorSum()
    served = {item.name: item.tensor for item in served_tensors(weights(), fmt, Selection(fmt, SHAPE), error)}
    weight = weights()[0].tensor
    want = quantize(Q, weight, fmt)
    assert set(served) == {*want, NORM}
    for name, tensor in want.items():
        assert torch.equal(served[name].reshape(-1).view(torch.uint8), tensor.contiguous().reshape(-1).view(torch.uint8))
    exact = weight.double()
    value = dequantize(want, Q.removesuffix(".weight"), fmt).double()
    assert error.relative_rms == pytest.approx(float((value - exact).norm() / exact.norm()), rel=1e-4)
    assert 0.001 < error.relative_rms < 0.2 and error.tensors == 1


def test_bf16_passes_through() -> None:
    error = ErrorSum()
    given = weights()
    assert list(served_tensors(given, Bf16(), Selection(Bf16(), SHAPE), error)) == given
    assert error.relative_rms == 0.0 and not math.isnan(error.relative_rms)
