"""What the stand-ins for trainer and engines share: the journal of calls, what lies on the devices, and the faults still to come."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lprl_api.derived.residency import ENGINE_PARTS, TRAIN_PARTS


@dataclass
class World:
    """What both sides share: the journal of calls, and the faults still to come."""

    journal: list[str] = field(default_factory=list)
    faults: dict[str, list[Exception]] = field(default_factory=dict)
    """Raised by the next calls of a method."""
    k3: Callable[[int], float] = lambda step: 0.001
    """Mismatch by optimizer step."""
    logprobs: Callable[[int], tuple[float, ...]] = lambda place: (-0.5, -0.25)
    """What engines say of a response, by its place among the requests."""
    writing: int = 0
    """How often the next checkpoint is looked for in vain."""

    trainer_up: set[str] = field(default_factory=lambda: set(TRAIN_PARTS))
    engine_up: set[str] = field(default_factory=lambda: set(ENGINE_PARTS))
    """Parts that lie on the devices."""
    moves: list[str] = field(default_factory=list)

    def move(self, who: str, up: set[str], what: str, parts: frozenset[Any]) -> None:
        if not parts and who == "engines":
            return
        assert parts and (parts <= up if what.startswith("sleep") else not parts & up), (who, what, parts, up)
        self.moves.append(f"{who} {what} {' '.join(sorted(parts))}")
        up.symmetric_difference_update(parts)

    def note(self, what: str) -> None:
        self.journal.append(what)
        waiting = self.faults.get(what.split()[0], [])
        if waiting:
            raise waiting.pop(0)
