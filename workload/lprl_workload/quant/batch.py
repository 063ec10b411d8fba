"""What quantising several weights at once says about them."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(slots=True)
class Seen:
    """What matrices were like, as tensors on their device: nothing has waited for them."""

    finite: Tensor
    """bool [matrices]."""
    squared_error: Tensor
    """float64 [matrices]."""
    squared_weight: Tensor
    """float64 [matrices]."""


Quantised = tuple[list[tuple[Tensor, ...]], Seen]
"""The parts of every weight, in the order of `Format.parts`, and what was seen of each."""
