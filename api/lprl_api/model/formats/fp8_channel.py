"""FP8 with one scale per output channel of a weight."""

from typing import ClassVar, Literal, Self

from lprl_api.model.formats.base import Activations, Stored
from lprl_api.model.formats.fp8 import CompressedFp8


class Fp8Channel(CompressedFp8):
    """E4M3 codes, one scale per output channel in `X.weight_scale` [N, 1] (compressed-tensors float-quantized)."""

    kind: Literal["fp8-channel"] = "fp8-channel"
    activations: Activations = "dynamic"
    exclude_modules: tuple[str, ...] = ()

    strategy: ClassVar[str] = "channel"
    reads: ClassVar[str] = "float 8 bits channel"

    def tile(self, rows: int, cols: int) -> tuple[int, int]:
        """See Format."""
        return (1, max(1, cols))

    @classmethod
    def read(cls, stored: Stored) -> Self | None:
        """See Format."""
        return cls(activations=stored.activations, exclude_modules=stored.excluded()) if cls.is_scheme(stored) else None
