"""The same kernels the GPU runs, on CPU tensors in Triton's interpreter: the CPU path's bytes, for every format and kind of values."""

import pytest
import torch
from tests.unit.lprl_workload.quant import triton_cases as cases

from lprl_api.model.formats import Fp8Block
from lprl_workload.quant import fp8_block, int4_group
from lprl_workload.quant.triton import available
from lprl_workload.sync import checksum as checksum_module

each_format = pytest.mark.parametrize("fmt", cases.FORMATS, ids=lambda f: f.model_dump_json(exclude_defaults=True))
SHAPES = ((3, 128), (9, 256))
"""A program takes the interpreter milliseconds: few of them, and what a tile does at its edges."""


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send CPU tensors through the kernels, as `usable` sends a GPU's."""

    def taken(*tensors: torch.Tensor) -> bool:
        return all(tensor.numel() for tensor in tensors) and available.switched_on()

    for module in (fp8_block, int4_group, checksum_module):
        monkeypatch.setattr(module, "usable", taken)


@each_format
def test_weights(fmt) -> None:
    cases.check_weights(fmt, "cpu", ((5, 128),))


@each_format
def test_a_batch_is_its_weights_one_by_one(fmt) -> None:
    cases.check_batch(fmt, "cpu", SHAPES + (((3, 40),) if cases.columns_of(fmt) == 1 else ()))


@each_format
def test_a_batch_of_many_shapes_is_too(fmt, monkeypatch: pytest.MonkeyPatch) -> None:
    cases.check_batch_looked_up(fmt, "cpu", monkeypatch, SHAPES)


def test_blocks_that_reach_over_edges() -> None:
    cases.check_weights(Fp8Block(), "cpu", ((130, 200),), kinds=("normal", "bits"))


@each_format
def test_experts_of_one_tensor_and_masters(fmt) -> None:
    cases.check_stack(fmt, "cpu", rows=6, cols=128)


@each_format
def test_what_is_not_finite_is_seen(fmt) -> None:
    cases.check_not_finite(fmt, "cpu")


def test_checksums() -> None:
    cases.check_checksums(checksum_module.checksum, checksum_module.checksums, "cpu")
