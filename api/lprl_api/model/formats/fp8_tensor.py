"""FP8 with one scale per weight."""

from typing import ClassVar, Literal, Self

from lprl_api.model.formats.base import Activations, Stored
from lprl_api.model.formats.fp8 import CompressedFp8


class Fp8Tensor(CompressedFp8):
    """E4M3 codes, one scale in `X.weight_scale` [1]."""

    kind: Literal["fp8-tensor"] = "fp8-tensor"
    activations: Activations = "dynamic"
    exclude_modules: tuple[str, ...] = ()

    strategy: ClassVar[str] = "tensor"
    whole: ClassVar[bool] = True
    reads: ClassVar[str] = "float 8 bits tensor"

    def tile(self, rows: int, cols: int) -> tuple[int, int]:
        """See Format."""
        return (rows, cols)

    def scales(self, rows: int, cols: int) -> tuple[int, ...]:
        """See Fp8."""
        return (1,)

    @classmethod
    def read(cls, stored: Stored) -> Self | None:
        """See Format; quant_method fp8 without blocks means one scale, and activations are no property of its section."""
        if stored.method == "fp8":
            return cls(exclude_modules=stored.excluded()) if stored.block is None else None
        return cls(activations=stored.activations, exclude_modules=stored.excluded()) if cls.is_scheme(stored) else None
