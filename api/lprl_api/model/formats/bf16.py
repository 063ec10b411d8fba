"""BFloat16 everywhere: the format of what is not quantised."""

from typing import ClassVar, Literal, Self

from lprl_api.model.formats.base import Format, Ignored, Part, Stored


class Bf16(Format):
    """BFloat16 everywhere, no quantization_config."""

    kind: Literal["bf16"] = "bf16"
    kernels: ClassVar[str] = "bf16"
    family: ClassVar[str] = "BF16"
    leaves: ClassVar[tuple[str, ...]] = ("weight",)

    def parts(self, rows: int, cols: int) -> tuple[Part, ...]:
        """See Format."""
        return (Part("weight", "BF16", (rows, cols)),)

    def tile(self, rows: int, cols: int) -> tuple[int, int]:
        """One element: none is scaled."""
        return (1, 1)

    def quantises(self, module: str, routed: bool) -> bool:
        """Nothing."""
        return False

    def quantization_config(self, ignored: Ignored) -> None:
        """None."""

    @classmethod
    def read(cls, stored: Stored) -> Self | None:
        """None: a checkpoint in BF16 has no section to read."""
        return None
