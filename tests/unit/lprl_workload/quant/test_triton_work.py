"""Launch grids of the Triton kernels take every weight once, and the shortcuts of their arithmetic are exact. Without Triton."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.lprl_workload.quant.quant_weights import FORMATS

from lprl_workload.quant.int4_group import LOWEST, MIN_SCALE, QMAX, pack
from lprl_workload.quant.triton.available import usable
from lprl_workload.quant.triton.work import Class, Matrix, classes, count_runs, manner, runs, table, tiles

UNITS = st.sampled_from([(128, 128), (4, 16), (64, 256)])
SHAPES = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=6)


@given(SHAPES, UNITS)
@settings(deadline=None, max_examples=60)
def test_every_weight_is_in_one_program(shapes: list[tuple[int, int]], unit: tuple[int, int]) -> None:
    numbers, owner = table([(0, 0, 0, *shape, 0) for shape in shapes], [tiles(*shape, unit) for shape in shapes])
    taken = [np.zeros(shape, dtype=int) for shape in shapes]
    for program, tensor in enumerate(owner):  # as fp8_tiles reads them
        rows, cols, first = (int(numbers[tensor, field]) for field in (3, 4, 5))
        across = -(-cols // unit[1])
        top, left = (program - first) // across * unit[0], (program - first) % across * unit[1]
        assert top < rows and left < cols
        taken[tensor][top : top + unit[0], left : left + unit[1]] += 1
    assert all((count == 1).all() for count in taken)
    assert numbers[:, 6].tolist() == np.bincount(owner, minlength=len(shapes)).tolist()


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_runs_say_where_in_the_whole_a_piece_lies(data: st.DataObject) -> None:
    whole = data.draw(st.lists(st.integers(1, 6), min_size=0, max_size=4))
    offset = [data.draw(st.integers(0, size - 1)) for size in whole]
    shape = [data.draw(st.integers(1, size - begin)) for size, begin in zip(whole, offset, strict=True)]
    position = np.arange(int(np.prod(whole))).reshape(whole)
    wanted = position[tuple(slice(b, b + s) for b, s in zip(offset, shape, strict=True))].reshape(-1)
    found = [(first + n, at + n) for first, length, at in runs(shape, whole, offset) for n in range(length)]
    assert found == list(enumerate(wanted.tolist()))
    assert count_runs(shape, whole) == len(list(runs(shape, whole, offset)))


def test_one_odd_weight_does_not_slow_the_others() -> None:
    expert, odd, askew = Matrix(0, 64, 0, 256, 256), Matrix(0, 64, 0, 130, 200), Matrix(8, 64, 0, 256, 256)
    found = classes([expert, odd, expert, askew], [("tiles", (128, 128))] * 4)
    assert found == {
        Class("tiles", (128, 128), 0, even=True, aligned=True): [0, 2],
        Class("tiles", (128, 128), 0, even=False, aligned=False): [1],
        Class("tiles", (128, 128), 0, even=True, aligned=False): [3],
    }


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f.model_dump_json(exclude_defaults=True))
@pytest.mark.parametrize("shape", [(1, 32), (130, 12288), (4096, 4096)])
def test_every_format_has_a_kernel(fmt, shape: tuple[int, int]) -> None:
    assert manner(fmt.tile(*shape), shape) is not None


def test_blocks_that_are_no_powers_of_two_have_none() -> None:
    assert manner((96, 128), (256, 256)) is None and manner((512, 512), (4096, 4096)) is None


def magnitudes() -> torch.Tensor:
    """Every finite BF16 magnitude, as float32."""
    return torch.arange(0x7F80, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).float()


@pytest.mark.parametrize("divisor", [QMAX, LOWEST])
def test_a_product_with_the_inverse_is_the_rounded_quotient_for_every_absmax(divisor: float) -> None:
    absmax = magnitudes()
    quotient = torch.div(absmax, torch.full_like(absmax, divisor)).clamp(min=MIN_SCALE).to(torch.bfloat16)
    product = (absmax * (1.0 / divisor)).clamp(min=MIN_SCALE).to(torch.bfloat16)
    assert torch.equal(quotient.view(torch.int16), product.view(torch.int16))


def test_no_code_lies_beyond_seven_so_the_kernel_does_not_clamp() -> None:
    absmax = magnitudes()
    scale = torch.div(absmax, torch.full_like(absmax, QMAX)).clamp(min=MIN_SCALE).to(torch.bfloat16).float()
    assert float((absmax * torch.reciprocal(scale)).max()) < 7.5


def test_eight_shifted_sums_are_the_packed_word() -> None:
    g = torch.Generator().manual_seed(0)
    codes = torch.randint(-8, 8, (512, 8), dtype=torch.int8, generator=g)
    shifted = (codes.float() + 12582912.0).view(torch.int32).to(torch.int64)
    words = ((shifted << (4 * torch.arange(8))).sum(dim=1) + 0x49488888) & 0xFFFFFFFF
    assert torch.equal(words, pack(codes)[:, 0].to(torch.int64) & 0xFFFFFFFF)


def test_nothing_on_a_cpu_goes_to_the_kernels() -> None:
    assert not usable(torch.ones(2, 2))
