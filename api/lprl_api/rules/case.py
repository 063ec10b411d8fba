"""What a rule looks at: the spec with everything derivable from it, each part None while unknown."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isqrt

from lprl_api.catalog.accelerators import ACCELERATORS, Accelerator
from lprl_api.derived import effective
from lprl_api.field_error import FieldError
from lprl_api.model.formats import WeightFormat
from lprl_api.model.formats.chosen import rollout_format, training_format
from lprl_api.model.model_shape import Inspection, ModelShape
from lprl_api.model.shapes import SHAPES
from lprl_api.spec.job import LowPrecisionRLJobSpec


@dataclass(frozen=True)
class Case:
    """One spec under test."""

    spec: LowPrecisionRLJobSpec
    shape: ModelShape | None
    """The inspected shape, else the known shape the spec names, else None."""
    inspection: Inspection | None
    accelerator: Accelerator | None
    """None when the table has no such row (an error of its own)."""

    @classmethod
    def of(cls, spec: LowPrecisionRLJobSpec, shape: ModelShape | None, inspection: Inspection | None) -> "Case":
        """Fill in what the spec implies."""
        shape = shape or (inspection.shape if inspection else None) or SHAPES.get(_known(lambda: spec.model.shape) or "")
        return cls(spec, shape, inspection, ACCELERATORS.get(_known(lambda: spec.topology.accelerator) or ""))

    @property
    def megatron(self) -> bool:
        """Whether Megatron trains."""
        return self.spec.backends.trainer == "megatron"

    @property
    def sglang(self) -> bool:
        """Whether SGLang serves."""
        return self.spec.backends.rollout == "sglang"

    @property
    def gpus_per_node(self) -> int:
        """Devices (or processes) of a node."""
        return effective.gpus_per_node(self.spec.topology)

    @property
    def engine_tensor(self) -> int:
        """Tensor-parallel size inside an engine."""
        return effective.engine_tensor(self.spec.topology.rollout)

    def rollout_format(self, shape: ModelShape) -> WeightFormat:
        """Format the engine serves."""
        return rollout_format(self.spec.precision, shape.moe is not None)

    def training_format(self, shape: ModelShape) -> WeightFormat:
        """Format the trainer's forward pass sees."""
        return training_format(self.spec.precision, shape.moe is not None)


def _known(read: Callable[[], str | None]) -> str | None:
    """Return a field, None where the spec has a gap (partial.py)."""
    try:
        return read()
    except AttributeError:
        return None


Rule = Callable[[Case], Iterator[FieldError]]


_TRIED = 1 << 16
"""Divisors are looked for up to here, so that no number takes longer than milliseconds."""


def divisors(number: int) -> str:
    """Return the divisors of a number as text for a remedy: all of up to twelve, else the eleven smallest that were found and itself."""
    small = [d for d in range(1, min(isqrt(number), _TRIED) + 1) if number % d == 0]
    found = sorted({*small, *(number // d for d in small)})
    return ", ".join(map(str, found if len(found) <= 12 else [*found[:11], found[-1]]))
