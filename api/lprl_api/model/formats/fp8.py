"""What the FP8 formats have in common: E4M3 codes in `X.weight`, float32 scales, and activations that engines quantise or do not."""

from typing import TYPE_CHECKING, ClassVar

from lprl_api.model.formats.base import WHOLE_ROW, Activations, Format, Ignored, Json, Part, Stored, compressed, scheme

if TYPE_CHECKING:
    from lprl_api.model.model_shape import SourceQuantization

FLOAT_FORMATS = ("float-quantized", "naive-quantized")
"""File formats of compressed-tensors that store E4M3 codes as they are."""


class Fp8(Format):
    """E4M3 codes with one float32 scale per tile."""

    if TYPE_CHECKING:
        # A field of each format, declared there: the order of fields is the order of keys in a RunConfig.
        activations: Activations = "dynamic"

    kernels: ClassVar[str] = "fp8_block"
    family: ClassVar[str] = "FP8"

    @property
    def weight_only(self) -> bool:
        """Whether engines leave activations in BF16 (W8A16)."""
        return self.activations == "none"

    @property
    def powers_of_two(self) -> bool:
        """Whether scales are powers of two."""
        return False

    def scales(self, rows: int, cols: int) -> tuple[int, ...]:
        """Return the shape of the stored scales."""
        high, wide = self.tile(rows, cols)
        return (-(-rows // high), -(-cols // wide))

    def parts(self, rows: int, cols: int) -> tuple[Part, ...]:
        """See Format."""
        codes, scale = self.leaves
        return (Part(codes, "F8_E4M3", (rows, cols)), Part(scale, "F32", self.scales(rows, cols)))


class CompressedFp8(Fp8):
    """FP8 in compressed-tensors' `float-quantized`, activations by token."""

    strategy: ClassVar[str]
    leaves: ClassVar[tuple[str, ...]] = ("weight", "weight_scale")

    @property
    def activation_group(self) -> int | None:
        """See Format."""
        return None if self.weight_only else WHOLE_ROW

    def quantization_config(self, ignored: Ignored) -> Json:
        """See Format; a group without input_activations makes engines compute with BF16 activations."""
        inputs = None if self.weight_only else scheme(8, "float", "token", dynamic=True)
        return compressed("float-quantized", scheme(8, "float", self.strategy), inputs, ignored.patterns())

    def held_by(self, found: "SourceQuantization") -> bool:
        """See Format: a source's config.json makes engines quantise activations (block FP8 is told by the engine's own switch)."""
        return not self.weight_only

    @classmethod
    def is_scheme(cls, stored: Stored) -> bool:
        """Return whether a compressed-tensors section says this strategy."""
        kind, bits, strategy, _, file_format = stored.scheme or (None,) * 5
        return (kind, bits, strategy) == ("float", 8, cls.strategy) and file_format in FLOAT_FORMATS
