"""What of trainer and engines lies on devices they share, phase by phase of a step: plans count by it, the loop moves by it.

    training (log-probabilities, optimizer steps) -> sync (a weight push) -> rollout (generation, evaluation) -> training ...

From training to rollout: the optimizer leaves, the engines' weights come back, the push fills them, the trainer's weights leave, the
KV cache comes back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Phase = Literal["training", "sync", "rollout"]
TrainPart = Literal["weights", "optimizer", "reference"]
"""weights: forward weights and FP32 masters. optimizer: moments, and gradients, whose values nobody needs between steps."""
EnginePart = Literal["weights", "kv"]

TRAIN_PARTS: frozenset[TrainPart] = frozenset({"weights", "optimizer", "reference"})
ENGINE_PARTS: frozenset[EnginePart] = frozenset({"weights", "kv"})


@dataclass(frozen=True, slots=True)
class Resident:
    """What is on the device."""

    trainer: frozenset[TrainPart]
    engine: frozenset[EnginePart]


RESIDENT: Mapping[Phase, Resident] = {
    "training": Resident(TRAIN_PARTS, frozenset()),
    # The trainer's weights: they are sent, and score the probe that engines are compared with.
    "sync": Resident(frozenset({"weights"}), frozenset({"weights"})),
    "rollout": Resident(frozenset(), ENGINE_PARTS),
}
