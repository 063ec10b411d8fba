"""Dealing requests to engines: each lot goes to the engine with the fewest open responses, and to another when that one dies.

A lot is whole groups (all samples of a prompt, so that an engine can compute what they share once). Only what a dead engine had open is
dealt again, to others at once, and drawn anew from its first token: with engines that can `seed-exact` and `batch-invariant` it is then
the very same response, wherever and beside whatever it is drawn, so that losing an engine, their number and their speed change nothing.

    pool, carrier, keeper                    what is shared by all who deal, how lots travel (Ray, threads), who replaces engines
    deal(pool, [4, 4, 4], carrier, keeper)   -> the answers of lots 0, 1, 2, however they were dealt
"""

import heapq
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Generic, Protocol, TypeVar

from lprl_workload.data import GenerationRequest
from lprl_workload.process.errors import EngineLostError

E = TypeVar("E")
R = TypeVar("R")
AnswerT = TypeVar("AnswerT", covariant=True)
CALLS = 32
"""Lots one engine works at side by side: each is a thread of its process."""
LOT_TOKENS = 2048
"""Tokens that are worth a call of their own: it costs an engine and the driver some milliseconds, what a GPU draws a dozen tokens in.
Short responses in small lots would also be drawn in passes of few rows, each lot's when it arrives."""
ROWS = 512
"""Responses one engine works at, unless the job says otherwise (`rollout.maxConcurrency`)."""
POLL_S, FULL_S = 2.0, 0.2
"""Between two looks at what is open; and at what others may have left, where lots wait for room."""


@dataclass(slots=True, eq=False)
class Seat(Generic[E]):
    """One life of an engine: its replacement gets a seat of its own."""

    number: int
    engine: E
    serial: int
    """No other seat has it."""
    open: int = 0
    """Responses it is asked for and has not given."""


class Pool(Generic[E]):
    """Engines that serve the same weights, and what each has open; shared by all threads that deal."""

    def __init__(self, limit: int) -> None:
        """Make a pool without engines. `limit`: open responses of one engine; one lot more may wait there, so that it never runs dry."""
        self._limit = limit
        self._seats: dict[int, Seat[E]] = {}
        self._gone: list[E] = []
        self._changed = threading.Condition()
        self._serials = count()

    def beside(self) -> "Pool[E]":
        """Return a pool without engines for others of the same group: what is lost in one is known to be in both."""
        found = Pool[E](self._limit)
        found._gone = self._gone
        return found

    @property
    def living(self) -> int:
        """Engines that take work."""
        return len(self._seats)

    def admit(self, engines: Sequence[E], but: Collection[int] = ()) -> None:
        """Let engines, by number, take work from now on; never one that was lost, nor one of `but`."""
        with self._changed:
            for number, engine in enumerate(engines):
                seat = self._seats.get(number)
                if number not in but and (seat is None or seat.engine is not engine) and not self.lost(engine):
                    self._seats[number] = Seat(number, engine, next(self._serials))
            self._gone[:] = [engine for engine in self._gone if any(engine is other for other in engines)]
            self._changed.notify_all()

    def withdraw(self, count: int) -> list[int]:
        """Deal nothing more to the `count` engines of the highest numbers, fewer where none would be left; returns their numbers."""
        with self._changed:
            numbers = sorted(self._seats)[1:][-count:] if count else []
            for number in numbers:
                del self._seats[number]
            self._changed.notify_all()
            return numbers

    def lost(self, engine: E) -> bool:
        """Return whether an engine was lost: whatever it still says, it has to be replaced."""
        return any(engine is gone for gone in self._gone)

    def lose(self, seat: Seat[E]) -> bool:
        """Give an engine up; returns False when that was known."""
        with self._changed:
            if self._seats.get(seat.number) is not seat:
                return False
            del self._seats[seat.number]
            self._gone.append(seat.engine)
            self._changed.notify_all()
            return True

    def give_up(self, number: int, engine: E) -> bool:
        """Give an engine up that was found lost by who does not deal; returns False when that was known."""
        with self._changed:
            seat = self._seats.get(number)
            return self.lose(seat) if seat is not None and seat.engine is engine else not self.lost(engine)

    def take(self, responses: int) -> Seat[E] | None:
        """Return the engine with the fewest open responses, which now has so many more; None when all are full."""
        with self._changed:
            freest = min(self._seats.values(), key=lambda seat: (seat.open, seat.number), default=None)
            if freest is None or freest.open > self._limit:
                return None
            freest.open += responses
            return freest

    def give_back(self, seat: Seat[E], responses: int) -> None:
        """Note that responses are open no longer."""
        with self._changed:
            seat.open -= responses
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Wait until something changed, `timeout_s` at most."""
        with self._changed:
            self._changed.wait(timeout_s)


class Carrier(Protocol[E, AnswerT]):
    """How lots get to engines, for one deal; lots have numbers."""

    def send(self, lot: int, seat: Seat[E]) -> None:
        """Begin a lot at an engine."""

    def answers(self, timeout_s: float) -> Mapping[int, AnswerT | EngineLostError]:
        """Wait until a lot ends, `timeout_s` at most; return what came of those that ended. Raises what is no engine's loss."""


class Keeper(Protocol):
    """Who replaces engines."""

    def lost(self, error: EngineLostError, left: int) -> None:
        """An engine is lost, told once; `left` others take work. Raises when no further loss is affordable."""

    def none_left(self) -> None:
        """Return when an engine takes work again."""


def deal(pool: Pool[E], sizes: Sequence[int], carrier: Carrier[E, R], keeper: Keeper) -> list[R]:
    """Return what comes of lots of `sizes` responses, in order. Raises what carrier and keeper raise."""
    waiting, at, done = list(range(len(sizes))), dict[int, Seat[E]](), dict[int, R]()
    try:
        while len(done) < len(sizes):
            while waiting and (seat := pool.take(sizes[waiting[0]])) is not None:
                lot = heapq.heappop(waiting)
                at[lot] = seat
                carrier.send(lot, seat)
            if not at:
                _wait_for_room(pool, keeper)
                continue
            for lot, answer in carrier.answers(FULL_S if waiting else POLL_S).items():
                seat = at.pop(lot)
                pool.give_back(seat, sizes[lot])
                if not isinstance(answer, EngineLostError):
                    done[lot] = answer
                    continue
                heapq.heappush(waiting, lot)
                if pool.lose(seat):
                    keeper.lost(answer, pool.living)
    finally:
        for lot, seat in at.items():
            pool.give_back(seat, sizes[lot])
    return [done[lot] for lot in range(len(sizes))]


def _wait_for_room(pool: Pool[E], keeper: Keeper) -> None:
    """Wait for engines that are full of others' work, or for one to come back."""
    if pool.living:
        pool.wait(FULL_S)
    else:
        keeper.none_left()


def lots(requests: Sequence[GenerationRequest], engines: int, limit: int, tokens: int) -> list[Sequence[GenerationRequest]]:
    """Cut requests into lots that are dealt whole; they tile `requests`.

    A lot is one group, the requests of one prompt that lie side by side, or as many groups as are worth a call: whose responses, of
    `tokens` tokens each at most, may together be LOT_TOKENS long. No more than leave a lot for every engine, though. Where single groups
    make more lots than `engines` work at side by side, a lot fills at least a CALLS-th of the `limit` responses an engine has open.
    """
    starts = [0, *(n for n, (one, two) in enumerate(pairwise(requests), 1) if (one.group, one.prompt) != (two.group, two.prompt))]
    edges = [*starts[1:], len(requests)] if requests else []
    worth, share = -(-LOT_TOKENS // tokens), max(1, len(edges) // engines)
    least = -(-limit // CALLS) if len(edges) > engines * CALLS else 1
    kept, groups = [0], 0
    for edge in edges:
        groups += 1
        size = edge - kept[-1]
        if (size >= least and (size >= worth or groups >= share)) or edge == len(requests):
            kept.append(edge)
            groups = 0
    return [requests[first:last] for first, last in pairwise(kept)]
