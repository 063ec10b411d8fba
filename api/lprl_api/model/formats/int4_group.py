"""Symmetric INT4 with one scale per group of input channels: compressed-tensors pack-quantized, as Kimi K2 is published."""

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from lprl_api.model.formats.base import Format, Ignored, Json, Part, Stored, compressed, scheme
from lprl_api.spec.precision import Scope

if TYPE_CHECKING:
    from lprl_api.model.model_shape import SourceQuantization

Grid = Literal["symmetric", "source"]
"""symmetric: codes -7 to 7, scale absmax / 7. source: beside it codes -8 to 7 and absmax / 8, whichever has the smaller largest error in a
group: keeps what is in an INT4 checkpoint, by 7 (Kimi K2) or by 7.5 with codes of -8 (round-to-nearest tools).
"""
GROUP_SIZES = (128, 64, 32)
"""Largest first: what fits is told in this order."""


class Int4Group(Format):
    """Symmetric INT4, one scale per `group_size` input channels (compressed-tensors pack-quantized)."""

    kind: Literal["int4-group"] = "int4-group"
    group_size: Literal[32, 64, 128] = 128
    scope: Scope = Scope.ROUTED_EXPERTS
    exclude_modules: tuple[str, ...] = ()
    grid: Grid = "symmetric"

    kernels: ClassVar[str] = "int4_group"
    family: ClassVar[str] = "INT4"
    leaves: ClassVar[tuple[str, ...]] = ("weight_packed", "weight_scale", "weight_shape")
    packed: ClassVar[int] = 8
    coarse: ClassVar[bool] = True
    reads: ClassVar[str] = "int 4 bits group 32/64/128 pack-quantized"

    def parts(self, rows: int, cols: int) -> tuple[Part, ...]:
        """See Format."""
        codes, scale, shape = self.leaves
        groups = -(-cols // self.group_size)
        return (Part(codes, "I32", (rows, -(-cols // self.packed))), Part(scale, "BF16", (rows, groups)), Part(shape, "I64", (2,)))

    def tile(self, rows: int, cols: int) -> tuple[int, int]:
        """See Format."""
        return (1, self.group_size)

    @property
    def unit(self) -> tuple[int, int]:
        """See Format."""
        return (1, self.group_size)

    def quantises(self, module: str, routed: bool) -> bool:
        """See Format; engines absorb kv_b_proj into the attention as a plain matrix and have no unpacking for INT4 there."""
        in_scope = routed or not self.experts_only
        return in_scope and not module.endswith(".kv_b_proj") and not self.excluded(module)

    @property
    def experts_only(self) -> bool:
        """See Format."""
        return self.scope is Scope.ROUTED_EXPERTS

    def misfit(self, cols: int) -> str | None:
        """See Format: no engine reads a shorter last group."""
        return f"{cols} input channels are no multiple of INT4 group size {self.group_size}" if cols % self.group_size else None

    def fitting(self, cols: int) -> str | None:
        """See Format."""
        fits = [size for size in GROUP_SIZES if cols % size == 0]
        return f"precision.int4.groupSize (lprl convert: --group-size) to {fits[0]}" if fits else None

    def logical(self, codes: tuple[int, ...], scale: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, ...], bool]:
        """See Format; a last group that is shorter fits nothing."""
        (rows, cols), wanted, _ = super().logical(codes, scale)
        return (rows, cols), wanted, scale == wanted and cols % self.group_size == 0

    def quantization_config(self, ignored: Ignored) -> Json:
        """See Format."""
        return compressed("pack-quantized", scheme(4, "int", "group", group=self.group_size), None, ignored.patterns())

    @classmethod
    def read(cls, stored: Stored) -> Self | None:
        """See Format."""
        kind, bits, strategy, group, file_format = stored.scheme or (None,) * 5
        if (kind, bits, strategy, file_format) != ("int", 4, "group", "pack-quantized") or group not in GROUP_SIZES:
            return None
        routed = stored.routed_only()
        excluded = stored.excluded_experts() if routed else stored.excluded()
        return cls(group_size=group, scope=Scope.ROUTED_EXPERTS if routed else Scope.ALL_LINEAR, exclude_modules=excluded)

    def facts(self) -> Json:
        """See Format."""
        return {"group_size": self.group_size, "scope": self.scope.value}

    def held_by(self, found: "SourceQuantization") -> bool:
        """See Format."""
        return found.symmetric and found.group_size == self.group_size and found.scope in (None, self.scope)
