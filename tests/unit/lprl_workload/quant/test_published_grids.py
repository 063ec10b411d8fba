"""INT4 as it is published: by 7 (Kimi K2) and by 7.5 with codes of -8 (round-to-nearest tools), trained and served on its own grid."""

import argparse

import pytest
import torch
from tests.unit.lprl_workload.quant.quant_weights import same_bits
from torch import Tensor

from lprl_api.model.formats import Int4Group
from lprl_api.model.formats.chosen import rollout_format, training_format
from lprl_api.spec.precision import Precision
from lprl_workload.convert.options import check_options, format_options, weight_format
from lprl_workload.process.arguments import UsageError
from lprl_workload.quant.int4_group import dequantize_int4, pack, quantize_int4
from lprl_workload.quant.scheme import dequantize, fake_quantize, quantization_error, quantize

GROUP = 32
SOURCE = Int4Group(group_size=GROUP, grid="source")


def weights(scale: float, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(256, 1024, generator=g) * scale).to(torch.bfloat16).view(256, -1, GROUP)


def by_seven(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and scales of Kimi K2's convention: absmax / 7, no floor."""
    absmax = groups.float().abs().amax(dim=-1, keepdim=True)
    scale = (absmax / 7).to(torch.bfloat16)
    return (groups.float() / scale.float()).round().clamp(-7, 7).to(torch.int8), scale


def by_seven_and_a_half(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and scales of round-to-nearest tools on compressed-tensors: absmax / 7.5 in the weight's type, codes -8 to 7."""
    absmax = groups.abs().amax(dim=-1, keepdim=True)
    scale = absmax / 7.5
    return (groups / scale).round().clamp(-8, 7).to(torch.int8), scale


CONVENTIONS = {"by 7": by_seven, "by 7.5": by_seven_and_a_half}


def published(convention: str, size: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Values an engine computes with, and what the checkpoint holds."""
    q, scale = CONVENTIONS[convention](weights(size, seed=1))
    q, scale = q.flatten(-2), scale.squeeze(-1)
    parts = {"x.weight_packed": pack(q), "x.weight_scale": scale, "x.weight_shape": torch.tensor(q.shape)}
    return dequantize_int4(q, scale), parts


@pytest.mark.parametrize("size", [0.02, 1e-5, 1e-8, 1e-30])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_published_checkpoint_comes_out_as_it_was(convention: str, size: float) -> None:
    value, parts = published(convention, size)
    again = quantize("x.weight", value, SOURCE)
    assert same_bits(dequantize(parts, "x", SOURCE), value) and same_bits(fake_quantize(value, SOURCE), value)
    same = (again["x.weight_scale"] == parts["x.weight_scale"]).float().mean()
    assert same == 1.0 and all(same_bits(part, parts[name]) for name, part in again.items())


def test_the_symmetric_grid_keeps_the_first_convention_and_moves_the_second() -> None:
    symmetric = Int4Group(group_size=GROUP)
    kept, _ = published("by 7", 0.02)
    moved, _ = published("by 7.5", 0.02)
    assert same_bits(fake_quantize(kept, symmetric), kept)
    assert float((fake_quantize(moved, symmetric) != moved).float().mean()) > 0.2


@pytest.mark.parametrize("code", range(-8, 8))
def test_every_scale_is_found_again_beside_its_extreme_code(code: int) -> None:
    """A group of -8 or of 7 with any other code: all 128 mantissas of a BF16 scale."""
    scale = (1 + torch.arange(128) / 128).to(torch.bfloat16)[:, None]
    for extreme in (-8, 7, -7):
        q = torch.zeros(128, GROUP, dtype=torch.int8)
        q[:, 0], q[:, 1] = extreme, max(code, extreme) if extreme < 0 else max(min(code, 7), -7)
        value = dequantize_int4(q, scale)
        assert same_bits(dequantize_int4(*quantize_int4(value, GROUP, grid="source")), value)


def test_weights_of_a_high_precision_source_lose_less_on_it() -> None:
    weight = weights(0.02, seed=2).flatten(-2)
    symmetric, source = (sum(quantization_error(weight, Int4Group(group_size=GROUP, grid=grid))[:1]) for grid in ("symmetric", "source"))
    assert source < symmetric


@pytest.mark.parametrize("size", [1e-5, 1e-7, 1e-12])
def test_small_weights_keep_the_relative_error_of_large_ones(size: float) -> None:
    error, power = quantization_error(weights(size, seed=3).flatten(-2), Int4Group(group_size=GROUP))
    plain, of = quantization_error(weights(0.02, seed=3).flatten(-2), Int4Group(group_size=GROUP))
    assert (error / power) ** 0.5 == pytest.approx((plain / of) ** 0.5, rel=0.02)


def test_a_job_and_the_command_line_say_the_grid() -> None:
    precision = Precision.model_validate({"training": "int4-qat", "rollout": "int4", "int4": {"grid": "source"}})
    for fmt in (rollout_format(precision, True), training_format(precision, True)):
        assert isinstance(fmt, Int4Group) and fmt.grid == "source"
    parser = argparse.ArgumentParser()
    format_options(parser)
    chosen = parser.parse_args(["--grid", "source"])
    assert weight_format("int4", chosen, True) == Int4Group(grid="source")
    with pytest.raises(UsageError, match="--grid: fp8-block has no such option"):
        check_options(["fp8"], chosen)
