"""FP8 with one scale per block of a weight: quant_method fp8, as DeepSeek publishes it."""

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from lprl_api.base import PositiveInt
from lprl_api.model.formats.base import WEIGHT_ONLY, Activations, Ignored, Json, Stored
from lprl_api.model.formats.fp8 import FLOAT_FORMATS, Fp8

if TYPE_CHECKING:
    from lprl_api.model.model_shape import SourceQuantization


class Fp8Block(Fp8):
    """E4M3 codes `X.weight`, one scale per block in `X.weight_scale_inv` (float32)."""

    kind: Literal["fp8-block"] = "fp8-block"
    block_size: tuple[PositiveInt, PositiveInt] = (128, 128)
    scale_format: Literal["float32", "ue8m0"] = "float32"
    activations: Activations = "dynamic"
    exclude_modules: tuple[str, ...] = ()

    leaves: ClassVar[tuple[str, ...]] = ("weight", "weight_scale_inv")
    same_shape: ClassVar[bool] = True

    @property
    def powers_of_two(self) -> bool:
        """Whether scales are powers of two."""
        return self.scale_format == "ue8m0"

    @property
    def unit(self) -> tuple[int, int]:
        """See Format."""
        return self.block_size

    @property
    def activation_group(self) -> int | None:
        """See Format."""
        return None if self.weight_only else self.block_size[1]

    def tile(self, rows: int, cols: int) -> tuple[int, int]:
        """See Format."""
        return self.block_size

    def quantization_config(self, ignored: Ignored) -> Json:
        """See Format."""
        block: Json = {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": list(self.block_size),
            "modules_to_not_convert": ignored.names(),
        }
        return block | ({"scale_fmt": "ue8m0"} if self.powers_of_two else {}) | ({WEIGHT_ONLY: True} if self.weight_only else {})

    @classmethod
    def read(cls, stored: Stored) -> Self | None:
        """See Format."""
        if stored.method != "fp8" or stored.block is None:
            return None
        excluded = stored.excluded()
        return cls(block_size=stored.block, scale_format=stored.scale_format, activations=stored.activations, exclude_modules=excluded)

    def facts(self) -> Json:
        """See Format."""
        return {"block_size": self.block_size}

    def held_by(self, found: "SourceQuantization") -> bool:
        """See Format."""
        return found.block_size == self.block_size and self.scale_format == "float32"


class CompressedFp8Block(Fp8Block):
    """The same numbers as compressed-tensors stores them (FP8_BLOCK): scales in `X.weight_scale`. Read, never written."""

    leaves: ClassVar[tuple[str, ...]] = ("weight", "weight_scale")
    reads: ClassVar[str] = "float 8 bits block"

    @classmethod
    def read(cls, stored: Stored) -> Self | None:
        """See Format."""
        kind, bits, strategy, _, file_format = stored.scheme or (None,) * 5
        if (kind, bits, strategy) != ("float", 8, "block") or file_format not in FLOAT_FORMATS or stored.block is None:
            return None
        return cls(block_size=stored.block, activations=stored.activations, exclude_modules=stored.excluded())

    def facts(self) -> Json:
        """Nothing an engine could serve as it is: weight pushes use the other names."""
        return {}
