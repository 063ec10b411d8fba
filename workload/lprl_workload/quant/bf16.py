"""BF16: weights as they are, rounded where they come in more bits."""

from collections.abc import Sequence

from torch import Tensor

from lprl_api.model.formats import Bf16
from lprl_workload.quant.batch import Quantised
from lprl_workload.quant.kernels import Kernels
from lprl_workload.quant.slab import SlabEncoder
from lprl_workload.quant.source import Check, rounded


class Bf16Kernels:
    """See Kernels."""

    def quantize(self, weight: Tensor, fmt: Bf16, check: Check) -> tuple[Tensor, ...]:
        """See Kernels; nothing is checked."""
        return (rounded(weight),)

    def batch(self, weights: Sequence[Tensor], fmt: Bf16) -> Quantised | None:
        """See Kernels."""
        return None

    def dequantize(self, parts: Sequence[Tensor], fmt: Bf16) -> Tensor:
        """See Kernels."""
        return parts[0]

    def fake_quantize(self, weight: Tensor, fmt: Bf16) -> Tensor:
        """See Kernels."""
        return rounded(weight)

    def tail(self, rows: int, cols: int) -> tuple[Tensor, ...]:
        """See Kernels."""
        return ()

    def encoder(self, fmt: Bf16, cols: int) -> SlabEncoder:
        """Never asked for: what stays in high precision is copied."""
        raise AssertionError("weights in BF16 are copied, not encoded")


KERNELS: Kernels = Bf16Kernels()
