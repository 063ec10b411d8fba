"""The same bits on a GPU as on a CPU, for every format and kind of values."""

from itertools import product

import pytest
import torch
from tests.unit.lprl_workload.quant.quant_weights import FORMATS, KINDS, fill, same_bits

from lprl_workload.quant.fp8_block import activation_fake_quantize
from lprl_workload.quant.scheme import fake_quantize, quantize

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f.model_dump_json(exclude_defaults=True))
def test_weights(fmt) -> None:
    for kind, (rows, cols) in product(KINDS, [(1, 128), (130, 256), (512, 1024)]):
        weight = fill(kind, rows, cols, seed=0)
        on_gpu = quantize("x.weight", weight.cuda(), fmt)
        for name, part in quantize("x.weight", weight, fmt).items():
            assert same_bits(part, on_gpu[name].cpu()), (name, kind, rows, cols)
        assert same_bits(fake_quantize(weight, fmt), fake_quantize(weight.cuda(), fmt).cpu()), (kind, rows, cols)


def test_activations() -> None:
    x = torch.randn(64, 1000)
    assert same_bits(activation_fake_quantize(x), activation_fake_quantize(x.cuda()).cpu())
