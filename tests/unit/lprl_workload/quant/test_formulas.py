"""The formulas of design section 5, by worked examples."""

import pytest
import torch

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group
from lprl_workload.quant.fp8_block import activation_fake_quantize, qscale_of, quantize_fp8
from lprl_workload.quant.int4_group import dequantize_int4, pack, quantize_int4, unpack
from lprl_workload.quant.scheme import dequantize, fake_quantize, quantize

FP32_MAX = torch.finfo(torch.float32).max


@pytest.mark.parametrize(
    ("absmax", "pow2", "want"),
    [
        pytest.param(448.0, False, 1.0, id="exact"),
        pytest.param(0.0, False, 1.0, id="zero-is-one"),
        pytest.param(0.0, True, 1.0, id="zero-is-one-ue8m0"),
        pytest.param(3.0, False, float(torch.tensor(448.0) / torch.tensor(3.0)), id="one-rounding"),
        pytest.param(3.0, True, 128.0, id="ue8m0-rounds-down"),
        pytest.param(3.5, True, 128.0, id="ue8m0-power-stays"),
        pytest.param(1e-37, False, FP32_MAX, id="overflow-is-largest-finite"),
        pytest.param(1e-37, True, 2.0**127, id="overflow-ue8m0"),
    ],
)
def test_qscale(absmax: float, pow2: bool, want: float) -> None:
    assert qscale_of(torch.tensor([absmax]), pow2).item() == want


def test_qscale_is_a_true_division() -> None:
    # 448 * (1 / absmax) rounds twice and differs for many values.
    absmax = torch.rand(4096) + 0.01
    exact = torch.tensor([448.0 / float(a) for a in absmax.double()], dtype=torch.float64).float()
    assert torch.equal(qscale_of(absmax), exact)
    assert not torch.equal(448.0 / absmax, exact)


def test_scale_inv_is_the_reciprocal_of_qscale() -> None:
    weight = torch.randn(130, 200)
    _, scale_inv = quantize_fp8(weight, (128, 128))
    absmax = weight.to(torch.bfloat16).float()[:128, :128].abs().max()
    assert scale_inv.shape == (2, 2)
    assert scale_inv[0, 0] == 1.0 / qscale_of(absmax.reshape(1))[0]


def test_ue8m0_scales_are_powers_of_two() -> None:
    parts = quantize("x.weight", torch.randn(300, 300) * 0.37, Fp8Block(scale_format="ue8m0"))
    mantissa, _ = torch.frexp(parts["x.weight_scale_inv"])
    assert torch.equal(mantissa, torch.full_like(mantissa, 0.5))


def test_ragged_tail_equals_zero_padding() -> None:
    weight = torch.randn(130, 200, dtype=torch.bfloat16)
    padded = torch.zeros(256, 256, dtype=torch.bfloat16)
    padded[:130, :200] = weight
    codes, scale = quantize_fp8(weight, (128, 128))
    padded_codes, padded_scale = quantize_fp8(padded, (128, 128))
    assert torch.equal(codes.float(), padded_codes[:130, :200].float())
    assert torch.equal(scale, padded_scale)


@pytest.mark.parametrize(
    ("values", "codes", "scale"),
    [
        pytest.param([7.0, -7.0, 3.5, -3.5, 2.5, 0.5], [7, -7, 4, -4, 2, 0], 1.0, id="half-goes-to-even"),
        pytest.param([0.0], [0], 2.0**-126, id="zeros-take-the-least-scale"),
        pytest.param([7e-6, -1e-6], [7, -1], 1e-6, id="small-weights-keep-a-scale-of-their-own"),
        pytest.param([2.0**-125, -(2.0**-126)], [2, -1], 2.0**-126, id="least-scale"),
    ],
)
def test_int4_codes(values: list[float], codes: list[int], scale: float) -> None:
    weight = torch.zeros(1, 32)
    weight[0, : len(values)] = torch.tensor(values)
    q, got = quantize_int4(weight, 32)
    assert q[0, : len(codes)].tolist() == codes
    assert got.dtype is torch.bfloat16
    assert got.item() == torch.tensor(scale).to(torch.bfloat16).item()


@pytest.mark.parametrize(
    ("values", "codes", "scale"),
    [
        pytest.param([-8.0, 7.0, 3.0], [-8, 7, 3], 1.0, id="codes-of-minus-8-stay"),
        pytest.param([7.0, -7.0, 3.0], [7, -7, 3], 1.0, id="symmetric-codes-stay"),
        pytest.param([-8.0, 8.0, 3.0], [-7, 7, 3], 1.1328125, id="the-scale-beside-that-of-8-by-7-is-closer"),
        pytest.param([0.0], [0], 2.0**-126, id="zeros"),
    ],
)
def test_int4_codes_of_the_sources_grid(values: list[float], codes: list[int], scale: float) -> None:
    weight = torch.zeros(1, 32)
    weight[0, : len(values)] = torch.tensor(values)
    q, got = quantize_int4(weight, 32, grid="source")
    assert got.item() == torch.tensor(scale).to(torch.bfloat16).item() and q[0, : len(codes)].tolist() == codes


def test_int4_scale_is_rounded_before_the_codes() -> None:
    # 1.0039 / 7 rounds down in BF16, so the largest weight is beyond code 7 and is clamped to it.
    weight = torch.full((1, 32), 1.0078125, dtype=torch.bfloat16)
    q, scale = quantize_int4(weight, 32)
    unrounded = weight.float().abs().max() / 7
    assert scale.item() != unrounded.item()
    assert torch.equal(fake_quantize(weight, Int4Group(group_size=32)), (q.float() * scale.float()).to(torch.bfloat16))


def test_int4_negative_zero_is_zero() -> None:
    value = fake_quantize(torch.tensor([[-0.0, -1e-9, 1.0, *[0.0] * 29]]), Int4Group(group_size=32))
    assert not torch.signbit(value[0, :2]).any()


def test_packing_is_low_nibble_first_with_offset_eight() -> None:
    q = torch.tensor([[-8, -7, -1, 0, 1, 2, 6, 7]], dtype=torch.int8)
    assert pack(q).item() & 0xFFFFFFFF == 0xFE_A9_87_10
    assert torch.equal(unpack(pack(q), 8), q)


def test_foreign_int4_is_read() -> None:
    """Code -8, a scale of absmax / 7.5, float32 scales, a shape in int32 and a group that fmt does not name."""
    q = torch.randint(-8, 8, (4, 64), dtype=torch.int8)
    scale = torch.rand(4, 4) / 7.5
    parts = {"x.weight_packed": pack(q), "x.weight_scale": scale, "x.weight_shape": torch.tensor([4, 64], dtype=torch.int32)}
    want = (q.float().view(4, 4, 16) * scale.unsqueeze(-1)).to(torch.bfloat16).view(4, 64)
    assert torch.equal(dequantize(parts, "x", Int4Group(group_size=32)), want)
    assert torch.equal(dequantize_int4(q, scale), want)


@pytest.mark.parametrize("fmt", [Fp8Block(), Fp8Channel(), Fp8Tensor(), Int4Group(group_size=32)], ids=lambda f: f.kind)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), 3.4e38])
def test_non_finite_input_names_the_tensor(fmt, bad: float) -> None:
    weight = torch.zeros(64, 64)
    weight[63, 63] = bad
    with pytest.raises(UserError, match=r"tensor model\.x\.weight: NaN or infinite"):
        quantize("model.x.weight", weight, fmt)


@pytest.mark.parametrize(
    ("name", "weight", "match"),
    [
        pytest.param("x.bias", torch.zeros(2, 32), "named MODULE.weight", id="name"),
        pytest.param("x.weight", torch.zeros(32), r"shape \[32\]", id="rank"),
        pytest.param("x.weight", torch.zeros(0, 32), r"shape \[0, 32\]", id="empty"),
        pytest.param("x.weight", torch.zeros(2, 32, dtype=torch.int32), "dtype int32", id="integers"),
        pytest.param("x.weight", torch.zeros(2, 32).to(torch.float8_e4m3fn), "dtype float8_e4m3fn", id="codes"),
        pytest.param("x.weight", torch.zeros(2, 40), "multiple of the group size 32", id="ragged-group"),
    ],
)
def test_wrong_input_is_a_user_error(name: str, weight: torch.Tensor, match: str) -> None:
    with pytest.raises(UserError, match=match):
        quantize(name, weight, Int4Group(group_size=32))


@pytest.mark.parametrize(
    ("parts", "fmt", "match"),
    [
        pytest.param({}, Bf16(), "x.weight: missing", id="missing"),
        pytest.param(
            {"x.weight": torch.zeros(256, 256), "x.weight_scale_inv": torch.ones(1, 2)}, Fp8Block(), r"needs \[2, 2\]", id="scale"
        ),
        pytest.param(
            {
                "x.weight_packed": torch.zeros(2, 4, dtype=torch.int32),
                "x.weight_scale": torch.ones(2, 1),
                "x.weight_shape": torch.tensor([2, 64]),
            },
            Int4Group(),
            "do not fit weight",
            id="packed",
        ),
    ],
)
def test_misshapen_parts_are_user_errors(parts: dict[str, torch.Tensor], fmt, match: str) -> None:
    with pytest.raises(UserError, match=match):
        dequantize(parts, "x", fmt)


def test_activation_quantisation_is_per_128_along_the_last_dimension() -> None:
    x = torch.randn(3, 5, 200)
    got = activation_fake_quantize(x)
    for start, end in ((0, 128), (128, 200)):
        part = x[1, 2, start:end]
        qscale = torch.tensor(448.0) / part.abs().max()
        want = (part * qscale).to(torch.float8_e4m3fn).float() * (1 / qscale)
        assert torch.equal(got[1, 2, start:end], want)
    x.requires_grad_()
    activation_fake_quantize(x).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
