"""MXFP4, as gpt-oss and Kimi-K3 are published: read, never written."""

from typing import ClassVar, Literal, Self

from lprl_api.model.formats.base import Format, Ignored, Part, Stored

GROUP = 32
"""Input channels that share a scale, a power of two."""


class Mxfp4(Format):
    """E2M1 codes, two to a byte, the first in the low bits: `X_blocks` [experts, N, K/32, 16], scales `X_scales` [experts, N, K/32]."""

    kind: Literal["mxfp4"] = "mxfp4"
    kernels: ClassVar[str] = "mxfp4"
    family: ClassVar[str] = "MXFP4"
    leaves: ClassVar[tuple[str, ...]] = ("blocks", "scales")

    def parts(self, rows: int, cols: int) -> tuple[Part, ...]:
        """See Format; of one expert."""
        return (Part("blocks", "U8", (rows, cols // GROUP, GROUP // 2)), Part("scales", "U8", (rows, cols // GROUP)))

    def tile(self, rows: int, cols: int) -> tuple[int, int]:
        """See Format."""
        return (1, GROUP)

    def quantises(self, module: str, routed: bool) -> bool:
        """Nothing: no conversion writes it."""
        return False

    def quantization_config(self, ignored: Ignored) -> None:
        """None: no conversion writes it."""

    @classmethod
    def read(cls, stored: Stored) -> Self | None:
        """None: only experts of a family without a table are read (lprl_workload/folder)."""
        return None


class CompressedMxfp4(Format):
    """A matrix of them, as compressed-tensors has it (Kimi-K3): `X.weight_packed` [N, K/2], `X.weight_scale` [N, K/32]."""

    kind: Literal["mxfp4"] = "mxfp4"
    exclude_modules: tuple[str, ...] = ()

    kernels: ClassVar[str] = "mxfp4"
    family: ClassVar[str] = "MXFP4"
    leaves: ClassVar[tuple[str, ...]] = ("weight_packed", "weight_scale")
    packed: ClassVar[int] = 2
    same_shape: ClassVar[bool] = True
    reads: ClassVar[str] = "float 4 bits group 32 mxfp4-pack-quantized"

    def parts(self, rows: int, cols: int) -> tuple[Part, ...]:
        """See Format."""
        return (Part("weight_packed", "U8", (rows, cols // self.packed)), Part("weight_scale", "U8", (rows, cols // GROUP)))

    def tile(self, rows: int, cols: int) -> tuple[int, int]:
        """See Format."""
        return (1, GROUP)

    @property
    def unit(self) -> tuple[int, int]:
        """See Format."""
        return (1, GROUP)

    def logical(self, codes: tuple[int, ...], scale: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, ...], bool]:
        """See Format; a last group that is shorter fits nothing."""
        (rows, cols), wanted, fits = super().logical(codes, scale)
        return (rows, cols), wanted, fits and cols % GROUP == 0

    def quantization_config(self, ignored: Ignored) -> None:
        """None: no conversion writes it."""

    @classmethod
    def read(cls, stored: Stored) -> Self | None:
        """See Format."""
        if stored.scheme != ("float", 4, "group", GROUP, "mxfp4-pack-quantized"):
            return None
        return cls(exclude_modules=stored.excluded())
