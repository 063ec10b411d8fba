"""Leader election against a store that behaves like the API server's Lease: versions, conflicts, absence."""

import copy
from collections.abc import Mapping
from typing import Any

from lprl_operator.kube.api import ApiError, Unavailable
from lprl_operator.leader import Elector
from lprl_operator.settings import Identity, LeaderElection

SETTINGS = LeaderElection.model_validate({"leaseDurationSeconds": 15, "renewDeadlineSeconds": 10, "retryPeriodSeconds": 2})


class Leases:
    """One Lease."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.down = False

    def _up(self) -> None:
        if self.down:
            raise Unavailable(0, "down", "no answer")

    def get(self, path: str, **_: str) -> dict[str, Any]:
        self._up()
        if self.lease is None:
            raise ApiError(404, "NotFound", path)
        return copy.deepcopy(self.lease)

    def post(self, path: str, document: Mapping[str, Any], **_: str) -> dict[str, Any]:
        self._up()
        if self.lease is not None:
            raise ApiError(409, "AlreadyExists", path)
        self.lease = {**copy.deepcopy(dict(document))}
        self.lease["metadata"]["resourceVersion"] = "1"
        return copy.deepcopy(self.lease)

    def put(self, path: str, document: Mapping[str, Any], **_: str) -> dict[str, Any]:
        self._up()
        assert self.lease is not None
        if document["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", path)
        self.lease = copy.deepcopy(dict(document))
        self.lease["metadata"]["resourceVersion"] = str(int(document["metadata"]["resourceVersion"]) + 1)
        return copy.deepcopy(self.lease)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def elector(leases: Leases, name: str, clock: Clock) -> Elector:
    return Elector(leases, SETTINGS, Identity("ns", name), clock=clock)  # type: ignore[arg-type]


def test_first_come_leads_and_the_second_waits_a_whole_lease_by_its_own_clock() -> None:
    leases, one, two = Leases(), Clock(), Clock()
    two.now = 5.0  # another machine's clock
    a, b = elector(leases, "a", one), elector(leases, "b", two)
    a.step()
    b.step()
    assert (a.is_leading(), b.is_leading()) == (True, False)
    for _ in range(7):
        two.now += 2
        b.step()
    assert not b.is_leading()
    two.now += 2
    b.step()
    assert b.is_leading()
    assert leases.lease is not None and leases.lease["spec"]["leaseTransitions"] == 1


def test_a_renewed_lease_is_never_taken() -> None:
    leases, clock = Leases(), Clock()
    a, b = elector(leases, "a", clock), elector(leases, "b", clock)
    for _ in range(50):
        a.step()
        b.step()
        clock.now += 2
    assert not b.is_leading()


def test_a_leader_that_cannot_renew_stops_before_another_may_start() -> None:
    leases, clock = Leases(), Clock()
    a, b = elector(leases, "a", clock), elector(leases, "b", clock)
    a.step()
    b.step()
    leases.down = True
    stopped = None
    for _ in range(20):
        clock.now += 1
        a.step()
        if not a.is_leading() and stopped is None:
            stopped = clock.now
    assert stopped is not None and stopped - 1000.0 <= SETTINGS.renew_deadline_seconds
    leases.down = False
    b.step()
    assert b.is_leading()
    a.step()
    assert not a.is_leading()


def test_changes_are_told_once() -> None:
    leases, clock, told = Leases(), Clock(), []
    a = Elector(leases, SETTINGS, Identity("ns", "a"), told.append, clock)  # type: ignore[arg-type]
    for _ in range(3):
        a.step()
        clock.now += 2
    assert told == [True]


def test_a_released_lease_is_free_at_once() -> None:
    leases, clock = Leases(), Clock()
    a, b = elector(leases, "a", clock), elector(leases, "b", clock)
    a.step()
    b.step()
    a._release()
    b.step()
    assert b.is_leading()


def test_without_election_everybody_leads() -> None:
    off = LeaderElection.model_validate({"enabled": False})
    alone = Elector(Leases(), off, Identity("ns", "a"))  # type: ignore[arg-type]
    alone.start()
    assert alone.is_leading()
