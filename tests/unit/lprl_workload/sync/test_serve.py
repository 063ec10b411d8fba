"""Served tensors are the quantizer's own bytes; the error is the error of exactly those."""

import pytest
import torch

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.spec.precision import Scope
from lprl_workload.data import NamedTensor
from lprl_workload.io.dtypes import DTYPE_NAMES
from lprl_workload.quant.scheme import dequantize, quantize
from lprl_workload.quant.select import Selection
from lprl_workload.sync.manifest import Entry, ServedAs
from lprl_workload.sync.serve import Notes, quantise_batch

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


def entries(named: list[NamedTensor]) -> list[tuple[Entry, torch.Tensor]]:
    return [(Entry(n.name, DTYPE_NAMES[n.tensor.dtype], tuple(n.tensor.shape), ()), n.tensor) for n in named]


def served_as(fmt: WeightFormat) -> ServedAs:
    return ServedAs(fmt, Selection(fmt, SHAPE))


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f.kind)
def test_served_bytes_are_the_quantizers(fmt: WeightFormat) -> None:
    notes = Notes()
    served = {item.name: item.tensor for item in quantise_batch(entries(weights()), served_as(fmt), notes)}
    weight = weights()[0].tensor
    want = quantize(Q, weight, fmt)
    assert set(served) == {*want, NORM}
    for name, tensor in want.items():
        assert torch.equal(served[name].reshape(-1).view(torch.uint8), tensor.contiguous().reshape(-1).view(torch.uint8))
    exact = weight.double()
    value = dequantize(want, Q.removesuffix(".weight"), fmt).double()
    ((name, (error, size)),) = notes.settle().items()
    assert name == Q and (error / size) ** 0.5 == pytest.approx(float((value - exact).norm() / exact.norm()), rel=1e-4)
    assert 0.001 < (error / size) ** 0.5 < 0.2


def test_bf16_and_codes_a_trainer_holds_pass_through() -> None:
    notes = Notes()
    given = weights()
    assert quantise_batch(entries(given), served_as(Bf16()), notes) == given
    held = [NamedTensor(name, tensor) for name, tensor in quantize(Q, given[0].tensor, Fp8Block()).items()]
    assert quantise_batch(entries(held), served_as(Fp8Block()), notes) == held
    assert notes.settle() == {}


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f.kind)
def test_values_that_are_not_finite_are_named_before_anything_is_committed(fmt: WeightFormat) -> None:
    notes = Notes()
    bad = weights()[0].tensor.clone()
    bad[3, 5] = float("nan")
    quantise_batch(entries([NamedTensor(Q, bad)]), served_as(fmt), notes)
    with pytest.raises(UserError, match=f"tensor {Q}: NaN or infinite values"):
        notes.settle()


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f.kind)
def test_a_push_waits_for_the_device_once_however_many_tensors_it_has(fmt: WeightFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    for method in ("__bool__", "__float__", "item", "tolist"):
        original = getattr(torch.Tensor, method)
        monkeypatch.setattr(torch.Tensor, method, lambda self, *a, o=original, m=method: (waits.append(m), o(self, *a))[1])
    many = [NamedTensor(f"model.layers.0.mlp.{part}_proj.weight", weights()[0].tensor) for part in ("gate", "up", "down")] + weights()
    notes = Notes()
    quantise_batch(entries(many), served_as(fmt), notes)
    assert waits == []
    assert len(notes.settle()) == 4 and len(waits) == 1
