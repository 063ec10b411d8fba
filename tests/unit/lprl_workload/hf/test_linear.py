"""Float32 products through oneDNN are float32 products: values, gradients, and the same bits every time."""

import pytest
import torch
from torch.nn.functional import linear as reference

from lprl_workload.hf import linear as subject

SHAPES = [(7, 576, 1536), (64, 1536, 192), (1, 520, 300), (33, 64, 64)]
"""Rows, input and output channels; the last is below the size worth it."""


def operands(rows: int, inputs: int, outputs: int, bias: bool) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(rows)
    shapes = [(2, rows, inputs), (outputs, inputs), *([(outputs,)] if bias else [])]
    return [torch.randn(shape, generator=g).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("bias", [False, True], ids=["no-bias", "bias"])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
def test_products_and_gradients_are_as_exact_as_float32_sums(rows: int, inputs: int, outputs: int, bias: bool) -> None:
    given = operands(rows, inputs, outputs, bias)
    exact = [x.detach().double().requires_grad_() for x in given]
    found, want = subject.linear(*given), reference(*exact)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    found.backward(weight)
    want.backward(weight.double())
    for value, wanted in [(found.detach(), want.detach()), *((a.grad, b.grad) for a, b in zip(given, exact, strict=True))]:
        assert value is not None and wanted is not None and value.dtype == torch.float32
        assert float((value - wanted).norm() / wanted.norm()) < 1e-6


def test_large_weights_take_the_other_library_and_give_the_same_bits_again() -> None:
    x, weight = operands(64, 576, 1536, bias=False)
    outputs = [subject.linear(x, weight) for _ in range(3)]
    assert (type(outputs[0].grad_fn).__name__ == "ViewBackward0") == subject.AVAILABLE
    assert all(torch.equal(outputs[0], other) for other in outputs)


def test_other_types_stay_with_torch() -> None:
    x, weight = (value.detach().bfloat16() for value in operands(4, 576, 1536, bias=False))
    assert torch.equal(subject.linear(x, weight), reference(x, weight))
