"""Engines of a group that evaluate beside training: no batch is dealt to them and no push reaches them until they are taken back."""

from collections.abc import Sequence
from typing import Generic, TypeVar

from lprl_workload.rollout.pool import Pool

E = TypeVar("E")


class Aside(Generic[E]):
    """A second pool beside that of the batches; an engine takes work in one of them."""

    def __init__(self, batches: Pool[E]) -> None:
        self._batches = batches
        self._members: dict[int, E] = {}
        self.pool = batches.beside()

    def set(self, engines: Sequence[E], count: int) -> int:
        """Take up to `count` engines out of the batches, where others are left; returns how many. What they have open they finish."""
        self._members = {number: engines[number] for number in self._batches.withdraw(count)}
        self.pool = self._batches.beside()
        self.pool.admit(engines, self.others(engines))
        return len(self._members)

    def numbers(self, engines: Sequence[E]) -> list[int]:
        """Return which of a group's engines are aside: one that died is until it is replaced, its replacement is not."""
        return [number for number, engine in self._members.items() if engines[number] is engine]

    def others(self, engines: Sequence[E]) -> list[int]:
        """Return which are not: pushes reach them."""
        mine = self.numbers(engines)
        return [number for number in range(len(engines)) if number not in mine]

    def end(self, engines: Sequence[E], work: bool) -> None:
        """No engine is aside any more. `work`: they serve what the others serve, and take batches at once; else after the next push."""
        others = self.others(engines)
        self._members, self.pool = {}, self._batches.beside()
        if work:
            self._batches.admit(engines, others)
