"""What a weight format's own module computes: one file a format (or a family of them), found by the name the format gives."""

import functools
import importlib
from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from lprl_api.model.formats import Format
from lprl_workload.quant.batch import Quantised
from lprl_workload.quant.slab import SlabEncoder
from lprl_workload.quant.source import Check


class Kernels(Protocol):
    """KERNELS of a module. `fmt` is a format of its family; values of its parts are in the order of `Format.parts`."""

    def quantize(self, weight: Tensor, fmt: Any, check: Check) -> tuple[Tensor, ...]:
        """Return the parts of `weight` [N, K]; raises ValueError for misfits and (unless `check` takes it for later) NaN."""

    def batch(self, weights: Sequence[Tensor], fmt: Any) -> Quantised | None:
        """Return the parts of `weights` [N, K], from as few launches as there can be; None where they go one by one.

        Nothing waits for the device, and nothing is said of NaN but in `Seen`; raises ValueError for misfits.
        """

    def dequantize(self, parts: Sequence[Tensor], fmt: Any) -> Tensor:
        """Return the values an engine computes with, [N, K]; raises ValueError for parts that do not fit together."""

    def fake_quantize(self, weight: Tensor, fmt: Any) -> Tensor:
        """Return dequantize(quantize(weight)) for `weight` [..., N, K], each matrix of a batch on its own."""

    def tail(self, rows: int, cols: int) -> tuple[Tensor, ...]:
        """Return the parts behind codes and scales, which follow from the shape alone."""

    def encoder(self, fmt: Any, cols: int) -> SlabEncoder:
        """Return what quantises a weight of `cols` columns a slab of rows at a time."""


def kernels_of(fmt: Format) -> Kernels:
    """Return what computes a format."""
    return _load(fmt.kernels)


@functools.cache
def _load(name: str) -> Kernels:
    found: Kernels = importlib.import_module(f"lprl_workload.quant.{name}").KERNELS
    return found
