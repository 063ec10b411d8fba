"""MXFP4 experts, as gpt-oss is published: read, never written."""

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
