"""Dealing: by load, within bounds, in order, and again only what a lost engine had open."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lprl_workload.data import GenerationRequest
from lprl_workload.episode import token_ids
from lprl_workload.process.errors import EngineLostError
from lprl_workload.rollout.pool import CALLS, LOT_TOKENS, Pool, Seat, deal, lots

IDS = token_ids([1])


def requests(*groups: int) -> list[GenerationRequest]:
    return [GenerationRequest(IDS, 0, prompt=10 + n, group=n, sample=s) for n, size in enumerate(groups) for s in range(size)]


class Played:
    """A carrier whose engines answer in turns: in each turn, every engine the oldest of its lots, unless it is slow or dies of it."""

    def __init__(self, dies: Mapping[str, int] | None = None, slow: Sequence[str] = ()) -> None:
        self.dies, self.slow = dict(dies or {}), slow
        self.sent: list[tuple[int, str]] = []
        self.open: list[tuple[int, Seat[str]]] = []
        self.most: dict[str, int] = {}
        self.turns = 0

    def send(self, lot: int, seat: Seat[str]) -> None:
        self.sent.append((lot, seat.engine))
        self.open.append((lot, seat))
        self.most[seat.engine] = max(self.most.get(seat.engine, 0), seat.open)

    def answers(self, timeout_s: float) -> dict[int, str | EngineLostError]:
        self.turns += 1
        found: dict[int, str | EngineLostError] = {}
        for name in dict.fromkeys(seat.engine for _, seat in self.open):
            mine = [lot for lot, seat in self.open if seat.engine == name]
            if self.dies.get(name, -1) == 0:
                found |= {lot: EngineLostError(0, f"{name} died") for lot in mine}
            elif name not in self.slow or self.turns % 10 == 0:
                found[mine[0]] = f"{name} {mine[0]}"
                self.dies[name] = self.dies.get(name, -1) - 1
        self.open = [(lot, seat) for lot, seat in self.open if lot not in found]
        return found


class Kept:
    """A keeper that admits what it is told to when nobody is left."""

    def __init__(self, pool: Pool[str], back: Sequence[str] = ()) -> None:
        self.pool, self.back, self.told = pool, back, list[tuple[str, int]]()

    def lost(self, error: EngineLostError, left: int) -> None:
        self.told.append((str(error), left))

    def none_left(self) -> None:
        if not self.back:
            raise EngineLostError(0, "no engine is left")
        self.pool.admit(self.back)


def pool_of(*engines: str, limit: int = 8) -> Pool[str]:
    pool = Pool[str](limit)
    pool.admit(engines)
    return pool


def test_a_lot_is_a_whole_group_so_that_an_engine_can_share_the_prompt() -> None:
    assert [len(lot) for lot in lots(requests(4, 4, 2), 1, 512, LOT_TOKENS)] == [4, 4, 2]
    assert lots([], 2, 512, LOT_TOKENS) == []


def test_groups_of_short_responses_share_a_lot_but_leave_one_for_every_engine() -> None:
    groups = requests(*[16] * 32)
    assert [len(lot) for lot in lots(groups, 1, 512, 2)] == [512]
    assert [len(lot) for lot in lots(groups, 4, 512, 2)] == [128] * 4
    assert [len(lot) for lot in lots(groups, 1, 512, LOT_TOKENS // 32)] == [32] * 16
    assert [len(lot) for lot in lots(groups, 1, 512, LOT_TOKENS)] == [16] * 32


@given(st.lists(st.integers(1, 9), min_size=1, max_size=200), st.integers(1, 3), st.integers(1, 600), st.integers(1, 4096))
def test_lots_tile_the_requests_and_cut_no_group(groups: list[int], engines: int, limit: int, tokens: int) -> None:
    asked = requests(*groups)
    found = lots(asked, engines, limit, tokens)
    assert [r for lot in found for r in lot] == asked
    assert all(before[-1].group != after[0].group for before, after in pairwise(found))
    if len(groups) > engines * CALLS:
        assert all(len(lot) >= limit / CALLS for lot in found[:-1]), "an engine works at so many calls at most"
    else:
        assert len(found) >= min(engines, len(groups)), "no engine waits for want of a lot"
        assert all((len(lot) - groups[lot[-1].group]) * tokens < LOT_TOKENS for lot in found), "one group less would not be worth a call"


def test_each_lot_goes_to_the_engine_with_the_fewest_open_responses_and_answers_come_in_order() -> None:
    pool, played = pool_of("a", "b"), Played()
    found = deal(pool, [4, 2, 2, 4], played, Kept(pool))
    assert played.sent[:4] == [(0, "a"), (1, "b"), (2, "b"), (3, "a")]
    assert found == ["a 0", "b 1", "b 2", "a 3"]


def test_an_engine_has_its_limit_open_and_one_lot_more_waiting_there() -> None:
    pool, played = pool_of("a", limit=8), Played()
    deal(pool, [4] * 10, played, Kept(pool))
    assert played.most == {"a": 12}


def test_a_slow_engine_holds_up_only_what_it_was_dealt() -> None:
    pool, played = pool_of("slow", "quick", limit=3), Played(slow=["slow"])
    deal(pool, [2] * 40, played, Kept(pool))
    shares = [sum(name == engine for _, name in played.sent) for engine in ("slow", "quick")]
    assert shares[0] <= 6 and shares[1] >= 34, "half of them each if they were dealt by position"


def test_only_what_a_dead_engine_had_open_is_dealt_again_to_others_at_once() -> None:
    pool, played = pool_of("a", "b", limit=3), Played(dies={"a": 2})
    kept = Kept(pool)
    found = deal(pool, [2] * 10, played, kept)
    times = [sum(lot == n for n, _ in played.sent) for lot in range(10)]
    again = [lot for lot in range(10) if times[lot] == 2]
    assert len(again) == 2 and set(times) == {1, 2}, "what it had open, not what it had finished, nor its share"
    assert all(found[lot] == f"b {lot}" for lot in again)
    assert kept.told == [("a died", 1)], "told once, however many lots were open"


def test_a_replacement_takes_no_work_before_it_is_admitted() -> None:
    pool = pool_of("a", "b")
    seat = pool.take(1)
    assert seat is not None and pool.lose(seat) and not pool.lose(seat)
    assert pool.living == 1 and pool.lost("a")
    pool.admit(["a", "b"])
    assert pool.living == 1, "what was lost never comes back as it was"
    pool.admit(["a again", "b"])
    assert pool.living == 2 and not pool.lost("a")
    freest = pool.take(1)
    assert freest is not None and freest.engine == "a again" and freest.serial != seat.serial


def test_with_nobody_left_the_rest_waits_for_the_keeper_and_nothing_finished_is_drawn_again() -> None:
    pool, played = pool_of("a", limit=1), Played(dies={"a": 3})
    found = deal(pool, [1] * 6, played, Kept(pool, ["a again"]))
    assert found == ["a 0", "a 1", "a 2", *(f"a again {n}" for n in (3, 4, 5))]
    assert sorted(lot for lot, _ in played.sent) == [0, 1, 2, 3, 3, 4, 4, 5]


def test_whoever_gives_up_leaves_nothing_open() -> None:
    pool, played = pool_of("a", limit=5), Played(dies={"a": 1})
    with pytest.raises(EngineLostError, match="no engine is left"):
        deal(pool, [2] * 5, played, Kept(pool))
    pool.admit(["b"])
    seat = pool.take(0)
    assert seat is not None and seat.open == 0


def test_several_threads_deal_from_one_pool_within_its_bounds() -> None:
    """As several collections in flight do: an engine's open responses are counted over all of them."""
    pool, together = pool_of("a", "b", limit=6), Barrier(4)
    players = [Played() for _ in range(4)]

    def one(played: Played) -> list[str]:
        together.wait(180)
        return deal(pool, [2] * 50, played, Kept(pool))

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(one, players))
    assert all([answer.split()[1] for answer in answers] == [str(n) for n in range(50)] for answers in found)
    assert max(max(played.most.values()) for played in players) <= 8
    assert [seat.open for seat in (pool.take(0), pool.take(0)) if seat] == [0, 0]
