"""Joins: everybody's reference is written, those who come during a patch share the next one, and errors reach those they concern."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lprl_operator.decide.actions import AddOwner
from lprl_operator.decide.observed import ObjectRef
from lprl_operator.places.cluster import Conflict
from lprl_operator.places.kube.joins import Joins

SHARED = ObjectRef("batch/v1", "Job", "ns", "lprl-convert-abc")


def join(uid: str, of: str = "u1") -> AddOwner:
    return AddOwner(SHARED, of, {"uid": uid})


class Server:
    """Notes patches; holds the first one until it is let go."""

    def __init__(self) -> None:
        self.patches: list[tuple[str, list[str]]] = []
        self.first, self.go = threading.Event(), threading.Event()

    def patch(self, ref: ObjectRef, uid: str, owners: Sequence[Mapping[str, Any]]) -> None:
        self.patches.append((uid, [o["uid"] for o in owners]))
        if len(self.patches) == 1:
            self.first.set()
            assert self.go.wait(180)
        if uid == "gone":
            raise Conflict("another object")


def test_those_who_come_during_a_patch_share_the_next_one() -> None:
    server = Server()
    joins = Joins(server.patch)
    with ThreadPoolExecutor(8) as pool:
        leader = pool.submit(joins.add, join("a"))
        assert server.first.wait(180)
        others = [pool.submit(joins.add, join(uid)) for uid in "bcdefg"]
        while len(joins._next.get((SHARED, "u1"), _nobody).owners) < 6:
            pass
        assert not any(f.done() for f in others)
        server.go.set()
        for future in (leader, *others):
            future.result(180)
    assert server.patches[0] == ("u1", ["a"])
    assert [uid for uid, _ in server.patches] == ["u1", "u1"] and sorted(server.patches[1][1]) == list("bcdefg")


class _Nobody:
    owners: tuple[str, ...] = ()


_nobody: Any = _Nobody()


def test_an_error_reaches_whoever_waited_for_that_patch_and_nobody_else() -> None:
    server = Server()
    server.go.set()
    joins = Joins(server.patch)
    with pytest.raises(Conflict):
        joins.add(join("a", of="gone"))
    joins.add(join("b"))
    assert server.patches == [("gone", ["a"]), ("u1", ["b"])]


def test_nothing_stays_behind() -> None:
    server = Server()
    server.go.set()
    joins = Joins(server.patch)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(joins.add, [join(f"o{i}") for i in range(200)]))
    assert sorted(uid for _, owners in server.patches for uid in owners) == sorted(f"o{i}" for i in range(200))
    assert not joins._next and not joins._sending
