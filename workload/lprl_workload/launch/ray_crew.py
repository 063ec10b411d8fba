"""The processes of one side, as whoever asks them sees it: one way to call them, to wait for them, and to say who is waited for.

A call names a method of what a process holds (`TrainActor.set_correction`, `RolloutEngine.probe`) or of the host around it
(`TrainHost.export`), and mypy checks its arguments: nothing in between repeats them.
A process that died, or stands still past its limits, is what `lost` makes of it: `EngineLostError: push: engine 1 on 10.0.0.7 ...`.
"""

from collections.abc import Callable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, TypeVar

from lprl_workload.launch.hosts import Place
from lprl_workload.launch.ray_link import ActorLostError, get_all
from lprl_workload.launch.ray_vigil import Vigil
from lprl_workload.launch.stillness import Limits

P = ParamSpec("P")
R = TypeVar("R")


def call(handle: Any, method: Callable[Concatenate[Any, P], object], *given: P.args, **named: P.kwargs) -> Any:
    """Begin a method in an actor's process, its host's own where that has one; returns a reference to what comes of it."""
    own = getattr(handle, method.__name__, None)
    return own.remote(*given, **named) if own is not None else handle.ask.remote(method.__name__, *given, **named)


@dataclass(slots=True)
class Crew:
    """Ranks or engines, by number."""

    kind: str
    """`rank` or `engine`."""
    lost: Callable[[int, str], Exception]
    """Makes the error of a lost one."""
    limits: Limits | None
    """Of how long they may stand still in a call; None: as long as they live."""
    handles: MutableSequence[Any] | Mapping[int, Any] = field(default_factory=list)
    places: MutableSequence[Any] = field(default_factory=list)
    """Where each landed, a Place; None, or shorter, where that is not known."""
    side: str = ""
    """Begins every error: `trainer: `."""

    def who(self, number: int) -> str:
        """Name one and its host."""
        place: Place | None = self.places[number] if number < len(self.places) else None
        return f"{self.kind} {number} on {place.address}" if place is not None else f"{self.kind} {number}"

    def gather(self, refs: Sequence[Any], what: str, numbers: Sequence[int] | None = None, limits: Limits | None = None) -> list[Any]:
        """Return what comes of calls under way to `numbers` (None: 0, 1, ...), in order; `what` they are for stands in errors."""
        of, allowed = range(len(refs)) if numbers is None else numbers, limits or self.limits
        vigil = Vigil([self.handles[number] for number in of], allowed) if allowed is not None else None
        try:
            return get_all(refs, self.side + what, who=lambda position: self.who(of[position]), vigil=vigil)
        except ActorLostError as error:
            raise self.lost(of[error.number], str(error)) from error

    def everywhere(self, method: Callable[Concatenate[Any, P], R], *given: P.args, **named: P.kwargs) -> list[R]:
        """Return what a method gives in every process, at once."""
        return self.at(range(len(self.handles)), method, *given, **named)

    def at(self, numbers: Sequence[int], method: Callable[Concatenate[Any, P], R], *given: P.args, **named: P.kwargs) -> list[R]:
        """Return what a method gives in some processes, at once."""
        refs = [call(self.handles[number], method, *given, **named) for number in numbers]
        return self.gather(refs, method.__name__, numbers)
