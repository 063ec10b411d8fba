"""What the Triton kernels must give, whatever runs them: the bytes of the CPU path. On a CPU their interpreter does, on a GPU the GPU."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from tests.unit.lprl_workload.quant.quant_weights import FORMATS, KINDS, columns_of, fill, same_bits
from torch import Tensor

from lprl_api.model.formats import Format
from lprl_workload.quant.kernels import kernels_of
from lprl_workload.quant.scheme import dequantize, fake_quantize, quantize, quantize_batch
from lprl_workload.quant.triton import work

SHAPES = ((1, 128), (130, 256), (300, 384), (512, 1024))
RAGGED = ((3, 40), (129, 200), (257, 130))
"""For formats that take any number of columns."""


@contextmanager
def without_kernels() -> Iterator[None]:
    before = os.environ.get("LPRL_TRITON")
    os.environ["LPRL_TRITON"] = "0"
    try:
        yield
    finally:
        os.environ.pop("LPRL_TRITON") if before is None else os.environ.__setitem__("LPRL_TRITON", before)


def shapes_of(fmt: Format) -> tuple[tuple[int, int], ...]:
    return SHAPES if columns_of(fmt) > 1 else SHAPES + RAGGED


def check_weights(
    fmt: Format, device: str, shapes: tuple[tuple[int, int], ...], dtype: torch.dtype = torch.bfloat16, kinds: tuple[str, ...] = KINDS
) -> None:
    """One by one: codes, scales, values."""
    for kind in kinds:
        for rows, cols in shapes:
            weight = fill(kind, rows, cols, seed=rows).to(dtype)
            case = (kind, rows, cols)
            found = quantize("x.weight", weight.to(device), fmt)
            with without_kernels():
                wanted = quantize("x.weight", weight, fmt)
                value = fake_quantize(weight, fmt)
            for name, part in wanted.items():
                assert same_bits(part, found[name].cpu()), (name, *case)
            assert same_bits(value, fake_quantize(weight.to(device), fmt).cpu()), case
            assert same_bits(value, dequantize(found, "x", fmt).cpu()), case


def check_batch(fmt: Format, device: str, shapes: tuple[tuple[int, int], ...] | None = None) -> None:
    """All kinds and shapes in one call, aligned or not: the same as one by one."""
    weights = [fill(kind, rows, cols, seed=7) for kind in KINDS for rows, cols in shapes or shapes_of(fmt)]
    items = [(f"x{number}.weight", weight) for number, weight in enumerate(weights)]
    parts, seen = quantize_batch([(name, weight.to(device)) for name, weight in items], fmt)
    with without_kernels():
        wanted, by_torch = quantize_batch(items, fmt)
    for (name, weight), part, want in zip(items, parts, wanted, strict=True):
        assert all(same_bits(want[key], part[key].cpu()) for key in want), (name, tuple(weight.shape))
    assert seen.finite.all() and seen.finite.shape == (len(items),)
    for (name, weight), error, power, coarse in zip(items, seen.squared_error, seen.squared_weight, by_torch.squared_error, strict=True):
        exact = weight.double()
        difference = (fake_quantize(weight, fmt).double() - exact).square().sum()
        rms, size = float(difference.sqrt()), float(exact.square().sum().sqrt())
        assert abs(float(error.sqrt()) - rms) <= 1e-4 * rms + 1e-6 * size + 1e-37, (name, float(error), float(coarse))
        assert abs(float(power.sqrt()) - size) <= 1e-4 * size + 1e-37, name


def check_batch_looked_up(
    fmt: Format, device: str, monkeypatch: pytest.MonkeyPatch, shapes: tuple[tuple[int, int], ...] | None = None
) -> None:
    """The same where every program looks up which weight it is of."""
    monkeypatch.setattr(work, "MOST_SHAPES", 0)
    check_batch(fmt, device, shapes)


def check_stack(fmt: Format, device: str, rows: int = 192, cols: int = 256) -> None:
    """Experts of one tensor, each on its own; also from float32 and float16 masters."""
    stack = torch.stack([fill(kind, rows, cols, seed=3) for kind in ("normal", "zeros", "one-outlier", "ties")])
    for dtype in (torch.bfloat16, torch.float32, torch.float16):
        weights = stack.to(dtype) * (1 + 2**-10) if dtype == torch.float32 else stack.to(dtype)
        with without_kernels():
            wanted = fake_quantize(weights, fmt)
        assert same_bits(wanted, fake_quantize(weights.to(device), fmt).cpu()), dtype


def check_not_finite(fmt: Format, device: str) -> None:
    for bad in (float("nan"), float("inf"), float("-inf")):
        weight = fill("normal", 70, 256, seed=1)
        weight[69, 255] = bad
        fine = fill("normal", 70, 256, seed=2)
        _, seen = quantize_batch([("a.weight", fine.to(device)), ("b.weight", weight.to(device)), ("c.weight", fine.to(device))], fmt)
        assert seen.finite.tolist() == [True, False, True], bad


def check_every_value(fmt: Format, device: str) -> None:
    """All 65,280 finite BF16 values, 128 a scale."""
    bits = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    weight = torch.nan_to_num(bits.float(), nan=0.0, posinf=0.0, neginf=0.0).clamp(-3e38, 3e38).to(torch.bfloat16).view(512, 128)
    found = quantize("x.weight", weight.to(device), fmt)
    with without_kernels():
        wanted = quantize("x.weight", weight, fmt)
    assert all(same_bits(part, found[name].cpu()) for name, part in wanted.items())


def check_checksums(one: Callable[..., Tensor], many: Callable[..., list[Tensor]], device: str) -> None:
    """`one` and `many` on `device` against PyTorch on the CPU: whole tensors, and pieces cut along any dimension."""
    g = torch.Generator().manual_seed(0)
    whole = [torch.randint(0, 256, (n,), dtype=torch.uint8, generator=g) for n in (1, 16, 48, 4096, 100_003, 65_536)]
    tensors = [raw for raw in whole] + [whole[5].view(dtype) for dtype in (torch.bfloat16, torch.int32, torch.int64, torch.float8_e4m3fn)]
    tensors += [torch.tensor(3), torch.zeros(0, 4), whole[5].view(torch.int16).view(32, 8, 128)[:, 3]]
    with without_kernels():
        wanted = [int(one(tensor)) for tensor in tensors]
    assert [int(value) for value in many([tensor.to(device) for tensor in tensors])] == wanted
    assert [int(one(tensor.to(device))) for tensor in tensors] == wanted
    box = whole[5].view(torch.int16).view(16, 16, 128)
    for cut in ((slice(3, 9),), (slice(0, 16), slice(5, 16)), (slice(2, 7), slice(1, 4), slice(32, 128))):
        offset = [s.start for s in cut] + [0] * (3 - len(cut))
        with without_kernels():
            want = int(one(box[cut], box.shape, offset))
        assert int(one(box[cut].to(device), box.shape, offset)) == want, cut


__all__ = [
    "FORMATS",
    "check_batch",
    "check_checksums",
    "check_every_value",
    "check_not_finite",
    "check_stack",
    "check_weights",
    "kernels_of",
    "shapes_of",
]
