"""Engines come back beside the work of those that are left: with the version being served, probed, and charged once each."""

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from lprl_workload.process.errors import DeadlineError, EngineLostError, WeightMismatchError
from lprl_workload.rl.refill import Refill

LIMIT_S = 180.0


class Engines:
    """Two engines, by number the version each serves; what replacing, copying and probing raise is told beforehand."""

    def __init__(self, *faults: tuple[str, Exception]) -> None:
        self.versions, self.journal, self.faults = [3, -1], list[str](), list(faults)
        self.fresh: list[list[int]] = []
        self.drift = 0.0
        self.hold = threading.Event()
        self.hold.set()

    def note(self, what: str) -> None:
        self.journal.append(what)
        if self.faults and self.faults[0][0] == what:
            raise self.faults.pop(0)[1]

    def replace_lost(self) -> list[int]:
        assert self.hold.wait(LIMIT_S)
        self.note("replace")
        return [1]

    def copy_version(self, version: int) -> bool:
        self.note("copy")
        if version not in self.versions:
            return False
        self.versions = [version, version]
        return True

    def probe(self, ids: Sequence[int]) -> list[tuple[float, ...]]:
        self.note("probe")
        return [(0.0,) * (len(ids) - 1), (self.drift,) * (len(ids) - 1)]

    def admit(self) -> None:
        self.note("admit")


def refill(engines: Any, charged: list[int] | None = None) -> Refill:
    return Refill(engines, lambda error: (charged if charged is not None else []).append(error.engine), range(5))


def test_whoever_asks_does_not_wait_for_it() -> None:
    engines = Engines()
    engines.hold.clear()
    made = refill(engines)
    made.want(3)
    assert engines.journal == []
    engines.hold.set()
    made.settle()
    assert engines.journal == ["replace", "copy", "probe", "admit"]


def test_an_engine_lost_while_others_come_back_is_replaced_too() -> None:
    engines = Engines()
    engines.hold.clear()
    made = refill(engines)
    made.want(3)
    made.want(3)
    engines.hold.set()
    made.settle()
    assert engines.journal.count("admit") in (1, 2) and engines.versions == [3, 3]


def test_without_a_peer_that_serves_the_version_nobody_takes_work() -> None:
    engines = Engines()
    made = refill(engines)
    made.want(4)
    made.settle()
    assert engines.journal == ["replace", "copy"]


@pytest.mark.parametrize(("where", "engine", "charged"), [("replace", 0, [0]), ("copy", 1, [1]), ("copy", 0, []), ("probe", 1, [1])])
def test_a_replacement_that_is_lost_itself_is_charged_and_a_peer_by_whom_it_works_for(where: str, engine: int, charged: list[int]) -> None:
    engines, found = Engines((where, EngineLostError(engine, "killed"))), list[int]()
    made = refill(engines, found)
    made.want(3)
    made.settle()
    assert found == charged and engines.journal[-1] == "admit"


def test_what_ends_it_is_raised_once_by_who_settles() -> None:
    made = refill(Engines(("replace", DeadlineError("no room"))))
    made.want(3)
    with pytest.raises(DeadlineError, match="no room"):
        made.settle()
    made.settle()


def test_a_replacement_that_computes_something_else_takes_no_work() -> None:
    engines = Engines()
    engines.drift = 1.0
    made = refill(engines)
    made.want(3)
    with pytest.raises(WeightMismatchError, match="copied to a returning engine: engine 1 and engine 0 differ by 1"):
        made.settle()
    assert "admit" not in engines.journal
