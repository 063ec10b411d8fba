"""What an interleaved pipeline keeps: fewer layers of more micro-batches, a little more in all."""

from fractions import Fraction

import pytest

from lprl_operator.plan.memory_trainer import micro_batches_in_flight


@pytest.mark.parametrize(
    ("pipeline", "stage", "virtual", "wanted"),
    [(4, 0, 1, 4), (4, 3, 1, 1), (4, 0, 2, Fraction(11, 2)), (2, 0, 2, Fraction(5, 2)), (2, 1, 2, Fraction(3, 2))],
)
def test_micro_batches_in_flight(pipeline: int, stage: int, virtual: int, wanted: Fraction) -> None:
    """On the first stage p (1 + (p - 1) / (p v)), as Megatron's papers have it."""
    assert micro_batches_in_flight(pipeline, stage, virtual) == wanted
    assert micro_batches_in_flight(pipeline, 0, virtual) == pipeline * (1 + Fraction(pipeline - 1, pipeline * virtual) * (virtual > 1))
