"""What everybody asks of a weight format: a format is one class in one file here, and its kernels are one file of the workload."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, Self

from lprl_api.base import Contract

if TYPE_CHECKING:
    from lprl_api.model.model_shape import SourceQuantization

Json = dict[str, Any]
Activations = Literal["dynamic", "none"]
"""What an engine does with the inputs of FP8 weights: quantises them at every product, or leaves them in high precision."""
WHOLE_ROW = 0
"""Activation group that means one scale per token; positive groups count channels; None is off."""
WEIGHT_ONLY = "weight_only"
"""Our own mark of block FP8 whose activations stay in BF16. Engines ask their own switch: quant_method fp8 knows no such key."""
BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1, "I16": 2, "I32": 4, "I64": 8}
"""Bytes of an element, by safetensors' name."""


class Part(NamedTuple):
    """One tensor that a weight is stored as."""

    leaf: str
    """Last name: `weight` of X.weight."""
    dtype: str
    """As safetensors names it."""
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its bytes."""
        return BYTES[self.dtype] * prod(self.shape)


class Ignored(Protocol):
    """The modules of a checkpoint that are not quantised, as a quantization_config lists them."""

    def patterns(self) -> list[str]:
        """As compressed-tensors' `ignore`."""

    def names(self) -> list[str]:
        """As `modules_to_not_convert` of quant_method fp8."""


@dataclass(frozen=True)
class Stored:
    """What a quantization_config says of the stored weights, whoever wrote it."""

    method: Literal["fp8", "compressed-tensors"]
    activations: Activations
    excluded: Callable[[], tuple[str, ...]]
    """Modules that a scheme for all linear layers leaves out."""
    block: tuple[int, int] | None = None
    scale_format: Literal["float32", "ue8m0"] = "float32"
    scheme: tuple[Any, ...] = ()
    """Of compressed-tensors: (type, bits, strategy, group size, file format)."""
    routed_only: Callable[[], bool] = lambda: False
    """Whether it quantises routed experts alone."""
    excluded_experts: Callable[[], tuple[str, ...]] = tuple
    """Of such a scheme: the experts it leaves out."""


class Format(Contract, ABC):
    """A weight format. N, K below are the rows (output channels) and columns (input channels) of a weight."""

    kind: str
    kernels: ClassVar[str]
    """Module of lprl_workload/quant/ that computes it."""
    family: ClassVar[str]
    """What people call its numbers: FP8, INT4."""
    leaves: ClassVar[tuple[str, ...]]
    """Last names of the tensors a weight is stored as, in the order of `parts`: the codes, their scales, what else."""
    packed: ClassVar[int] = 1
    """Weights in one element of the stored codes."""
    whole: ClassVar[bool] = False
    """Whether one scale is shared by all rows of a weight: it is read whole before it is quantised."""
    coarse: ClassVar[bool] = False
    """Whether its rounding changes answers so much that a comparison with unrounded weights says nothing."""
    reads: ClassVar[str] = ""
    """What a compressed-tensors scheme must say to be read as it, for people; empty for formats stored in another way."""
    same_shape: ClassVar[bool] = False
    """Whether a stored scale must have just the shape `parts` says; else any with as many elements will do."""

    @abstractmethod
    def parts(self, rows: int, cols: int) -> tuple[Part, ...]:
        """Return what a weight [rows, cols] is stored as, in the order of `leaves`."""

    @abstractmethod
    def tile(self, rows: int, cols: int) -> tuple[int, int]:
        """Return the rectangle of a weight [rows, cols] that shares one scale."""

    @property
    def unit(self) -> tuple[int, int]:
        """Rows and columns of which each piece of a weight must have whole multiples, wherever it is cut."""
        return (1, 1)

    @property
    def activation_group(self) -> int | None:
        """Input channels that share one scale where an engine quantises activations: a count, WHOLE_ROW, or None where it does not."""
        return None

    def excluded(self, module: str) -> bool:
        """Return whether a pattern of precision.excludeModules names `module`."""
        patterns: tuple[str, ...] = getattr(self, "exclude_modules", ())
        return any(fnmatchcase(module, pattern) for pattern in patterns)

    def quantises(self, module: str, routed: bool) -> bool:
        """Return whether it quantises linear `module` of a decoder (without `.weight`); `routed`: an expert chosen by a router."""
        return not self.excluded(module)

    @property
    def experts_only(self) -> bool:
        """Whether it quantises nothing but routed experts: a model without any has nothing for it."""
        return False

    def misfit(self, cols: int) -> str | None:
        """Return why a weight of `cols` input channels cannot be quantised, None where it can."""
        return None

    def fitting(self, cols: int) -> str | None:
        """Return the setting that would fit instead, in the words of a manifest and of the command line; None where none does."""
        return None

    def names(self, module: str) -> tuple[str, ...]:
        """Return the tensors that X.weight is stored as, X being `module`."""
        return tuple(f"{module}.{leaf}" for leaf in self.leaves)

    def nbytes(self, rows: int, cols: int) -> int:
        """Return the bytes of a weight, scales included."""
        return sum(part.nbytes for part in self.parts(rows, cols))

    def logical(self, codes: tuple[int, ...], scale: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, ...], bool]:
        """Return what stored codes [N, ...] and a scale of these shapes say: the weight's [N, K], the scale it needs, whether they fit."""
        rows, cols = codes[0], codes[1] * self.packed
        wanted = self.parts(rows, cols)[1].shape
        return (rows, cols), wanted, prod(scale) == prod(wanted) and (scale == wanted or not self.same_shape)

    @abstractmethod
    def quantization_config(self, ignored: Ignored) -> Json | None:
        """Return the `quantization_config` of a checkpoint's config.json; None for high precision."""

    @classmethod
    @abstractmethod
    def read(cls, stored: Stored) -> Self | None:
        """Return the format that a quantization_config says, None where it says another."""

    def facts(self) -> dict[str, Any]:
        """Return what SourceQuantization keeps of it beside its kind."""
        return {}

    def held_by(self, found: "SourceQuantization") -> bool:
        """Return whether a published source of this kind holds just the bytes an engine would be given."""
        return True


def scheme(bits: int, kind: str, strategy: str, *, group: int | None = None, dynamic: bool = False) -> Json:
    """Return the arguments of a compressed-tensors scheme."""
    return {
        "num_bits": bits,
        "type": kind,
        "strategy": strategy,
        "symmetric": True,
        "dynamic": dynamic,
        "group_size": group,
        "block_structure": None,
        "actorder": None,
        "observer": None if dynamic else "minmax",
        "observer_kwargs": {},
    }


def compressed(file_format: str, weights: Json, activations: Json | None, ignored: list[str]) -> Json:
    """Return the compressed-tensors section of a checkpoint with one scheme for its linear layers."""
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": file_format,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ignored,
        "kv_cache_scheme": None,
    }
