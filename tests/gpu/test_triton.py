"""The Triton kernels on a GPU give the CPU path's bytes, for every format, kind of values, dtype and shape; and are what runs there."""

import pytest
import torch
from tests.unit.lprl_workload.quant import triton_cases as cases

from lprl_workload.quant.triton.available import usable
from lprl_workload.sync.checksum import checksum, checksums

pytestmark = pytest.mark.gpu
each_format = pytest.mark.parametrize("fmt", cases.FORMATS, ids=lambda f: f.model_dump_json(exclude_defaults=True))


def test_the_kernels_are_what_runs_here() -> None:
    # Otherwise the comparisons below compare PyTorch with itself.
    assert usable(torch.ones(1, device="cuda"))


@each_format
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_weights(fmt, dtype: torch.dtype) -> None:
    cases.check_weights(fmt, "cuda", cases.shapes_of(fmt), dtype)


@each_format
def test_every_finite_value(fmt) -> None:
    cases.check_every_value(fmt, "cuda")


@each_format
def test_a_batch_is_its_weights_one_by_one(fmt) -> None:
    cases.check_batch(fmt, "cuda")


@each_format
def test_a_batch_of_many_shapes_is_too(fmt, monkeypatch: pytest.MonkeyPatch) -> None:
    cases.check_batch_looked_up(fmt, "cuda", monkeypatch)


@each_format
def test_experts_of_one_tensor_and_masters(fmt) -> None:
    cases.check_stack(fmt, "cuda")


@each_format
def test_what_is_not_finite_is_seen(fmt) -> None:
    cases.check_not_finite(fmt, "cuda")


def test_checksums() -> None:
    cases.check_checksums(checksum, checksums, "cuda")


def test_a_batch_waits_for_nothing() -> None:
    from lprl_workload.quant.scheme import quantize_batch

    items = [(f"x{n}.weight", torch.randn(256, 256, device="cuda")) for n in range(8)]
    for fmt in cases.FORMATS:
        quantize_batch(items, fmt)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            quantize_batch(items, fmt)
        finally:
            torch.cuda.set_sync_debug_mode("default")
