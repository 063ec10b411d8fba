"""File 1 of the recipe: what everybody asks of the format."""

from typing import ClassVar, Literal, Self

from lprl_api.model.formats.base import Format, Ignored, Json, Part, Stored, compressed, scheme


class Int8Row(Format):
    """Symmetric INT8, one float32 scale per output channel."""

    kind: Literal["int8-row"] = "int8-row"
    exclude_modules: tuple[str, ...] = ()

    kernels: ClassVar[str] = "int8_row"
    family: ClassVar[str] = "INT8"
    leaves: ClassVar[tuple[str, ...]] = ("weight", "weight_scale")
    reads: ClassVar[str] = "int 8 bits channel"

    def parts(self, rows: int, cols: int) -> tuple[Part, ...]:
        return (Part("weight", "I8", (rows, cols)), Part("weight_scale", "F32", (rows, 1)))

    def tile(self, rows: int, cols: int) -> tuple[int, int]:
        return (1, cols)

    def quantization_config(self, ignored: Ignored) -> Json:
        return compressed("int-quantized", scheme(8, "int", "channel"), None, ignored.patterns())

    @classmethod
    def read(cls, stored: Stored) -> Self | None:
        fits = stored.scheme[:3] == ("int", 8, "channel")
        return cls(exclude_modules=stored.excluded()) if fits else None
