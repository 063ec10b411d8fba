"""Bar 3, the quantizer's part: every path to a low-precision value gives the same bits, for every format."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.lprl_workload.quant.quant_weights import FORMATS, columns_of, examples, same_bits, weights

from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group
from lprl_workload.quant.kernels import kernels_of
from lprl_workload.quant.native import kernels
from lprl_workload.quant.scheme import dequantize, fake_quantize, quantization_error, quantize, served_names, straight_through
from lprl_workload.quant.slab import raw_bytes


def ids(fmt: object) -> str:
    return "-".join(str(v) for v in fmt.model_dump(exclude={"exclude_modules"}).values())  # type: ignore[attr-defined]


each_format = pytest.mark.parametrize("fmt", FORMATS, ids=ids)


@each_format
@examples
@given(data=st.data())
def test_every_path_gives_the_same_bits(fmt, data) -> None:
    weight = data.draw(weights(columns_of(fmt)))
    parts = quantize("x.weight", weight, fmt)
    assert tuple(parts) == served_names("x.weight", fmt)
    value = dequantize(parts, "x", fmt)
    assert same_bits(value, fake_quantize(weight, fmt))
    master = weight.float().requires_grad_()
    seen = straight_through(master, fmt)
    assert same_bits(seen.detach(), value.float())
    upstream = torch.randn(seen.shape)
    seen.backward(upstream)
    assert torch.equal(master.grad, upstream)


@each_format
@examples
@given(data=st.data())
def test_master_weights_are_rounded_to_bf16_first(fmt, data) -> None:
    weight = data.draw(weights(columns_of(fmt)))
    noisy = weight.float() * (1 + 2**-12)
    assert same_bits(fake_quantize(noisy, fmt), fake_quantize(noisy.to(torch.bfloat16), fmt))


@each_format
@examples
@given(data=st.data())
def test_batches_are_matrices_on_their_own(fmt, data) -> None:
    weight = data.draw(weights(columns_of(fmt)))
    other = weight.flip(0) * 0.5
    batch = torch.stack([weight, other])
    assert same_bits(fake_quantize(batch, fmt), torch.stack([fake_quantize(weight, fmt), fake_quantize(other, fmt)]))


@each_format
@examples
@given(data=st.data())
def test_slabs_native_and_torch_equal_quantize(fmt, data, monkeypatch) -> None:
    weight = data.draw(weights(columns_of(fmt)))
    codes, scale = (raw_bytes(part) for part in list(quantize("x.weight", weight, fmt).values())[:2])
    errors = []
    for native in ("1", "0"):
        monkeypatch.setenv("LPRL_NATIVE", native)
        encoder = kernels_of(fmt).encoder(fmt, weight.shape[1])
        step = encoder.unit * data.draw(st.integers(1, 5))
        slabs = [weight[i : i + step].contiguous() for i in range(0, len(weight), step)]
        if encoder.two_passes:
            for slab in slabs:
                encoder.measure(slab)
        done = [tuple(bytes(part) for part in encoder.encode(slab)) for slab in slabs]
        assert b"".join(part[0] for part in done) == bytes(codes)
        scales = [part[1] for part in done]
        assert (scales[0] if encoder.two_passes else b"".join(scales)) == bytes(scale)
        errors.append(encoder.errors())
    ours, reference = errors
    assert ours.groups == reference.groups
    assert (ours.zero_groups, ours.clipped_groups) == (reference.zero_groups, reference.clipped_groups)
    # The kernels take statistics in fp32, in units of the scale: exact up to the rounding of one product per weight.
    largest = float(weight.abs().max())
    np.testing.assert_allclose(ours.squared_weight, reference.squared_weight, rtol=1e-4, atol=1e-60)
    np.testing.assert_allclose(ours.max_abs_error, reference.max_abs_error, rtol=1e-4, atol=1e-6 * largest)
    rms, expected = math.sqrt(ours.squared_error), math.sqrt(reference.squared_error)
    np.testing.assert_allclose(rms, expected, rtol=1e-4, atol=1e-6 * math.sqrt(reference.squared_weight) + 1e-37)


@pytest.mark.parametrize("bits", range(0, 65536, 4096))
@pytest.mark.parametrize("fmt", [Fp8Block(), Fp8Block(scale_format="ue8m0"), Fp8Channel(), Fp8Tensor(), Int4Group(group_size=32)], ids=ids)
def test_every_bf16_value_in_every_path(fmt, bits, monkeypatch) -> None:
    values = torch.arange(bits, bits + 4096, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    weight = torch.nan_to_num(values.float(), nan=0.0, posinf=0.0, neginf=0.0).clamp(-3e38, 3e38).to(torch.bfloat16).view(64, 64)
    want = list(quantize("x.weight", weight, fmt).values())[:2]
    monkeypatch.setenv("LPRL_NATIVE", "1")
    encoder = kernels_of(fmt).encoder(fmt, 64)
    encoder.measure(weight)
    codes, scale = encoder.encode(weight)
    assert bytes(codes) == bytes(raw_bytes(want[0]))
    assert bytes(scale) == bytes(raw_bytes(want[1]))


def test_kernels_are_built_here() -> None:
    # Otherwise the comparisons above compare PyTorch with itself.
    assert kernels() is not None


@each_format
@examples
@given(data=st.data())
def test_error_sums_are_the_definition(fmt, data) -> None:
    weight = data.draw(weights(columns_of(fmt)))
    error, power = quantization_error(weight, fmt)
    reference = weight.double()
    assert error == float((fake_quantize(weight, fmt).double() - reference).square().sum())
    assert power == float(reference.square().sum())


def test_bf16_is_the_identity() -> None:
    weight = torch.randn(3, 5)
    parts = quantize("x.weight", weight, Bf16())
    assert same_bits(parts["x.weight"], weight.to(torch.bfloat16))
    assert same_bits(dequantize(parts, "x", Bf16()), fake_quantize(weight, Bf16()))
