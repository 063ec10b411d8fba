"""Something fails at any bucket of a push: all ranks leave together, nothing uncommitted is served, and the next push is right."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.contract.push_site import FORMATS, Site, assert_served
from torch import Tensor

from lprl_fixtures.pushes import Mesh, moved
from lprl_workload.data import Bucket, SyncReport
from lprl_workload.process.errors import EngineLostError, TrainerLostError
from lprl_workload.sync.peers import AbandonedError
from lprl_workload.sync.routes import Target
from lprl_workload.sync.session import Transport


def failing(at: int, error: Exception) -> Callable[[Transport], Transport]:
    """Make a transport whose `at`-th bucket fails."""

    def spoil(transport: Transport) -> Transport:
        send, sent = transport.send, [0]

        def failed(bucket: Bucket, to: Any) -> None:
            sent[0] += 1
            if sent[0] == at + 1:
                raise error
            send(bucket, to)

        transport.send = failed  # type: ignore[method-assign]
        return transport

    return spoil


@pytest.mark.parametrize("way", ["local", "disk", "broadcast"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_sender_that_fails_at_any_bucket_takes_all_ranks_out_and_the_next_push_is_right(
    site: Callable[..., Site], weights: dict[str, Tensor], way: str, rank: int
) -> None:
    there = site(way, FORMATS[1], Mesh(tp=2, pp=2))
    assert all(isinstance(report, SyncReport) for report in there.push(weights, 0))
    count = len(there.routes(weights).of(rank)) * 3
    version = 0
    for at in range(0, count, 1 if way == "local" else max(1, count // 3)):
        now, version = moved(weights, 0.01 * at), version + 1
        there.spoil = lambda r, t, at=at: failing(at, OSError(28, "No space left on device"))(t) if r == rank else t  # type: ignore[misc]
        reports = there.push(now, version, strong=False)
        if isinstance(reports[rank], SyncReport):
            break  # beyond its last bucket
        assert isinstance(reports[rank], OSError)
        assert all(isinstance(reports[r], AbandonedError) for r in range(4) if r != rank), reports
        if way != "disk":
            assert all(keeper.served is None for keeper in there.keepers.values()), "what was not committed is not served"
        there.spoil = lambda r, t: t
        now, version = moved(weights, 0.01 * at + 0.005), version + 1
        assert all(isinstance(report, SyncReport) for report in there.push(now, version, strong=False))
        assert_served(there, now)
    assert version >= 4


@pytest.mark.parametrize("victim", [Target(0), Target(1, 1)], ids=["whole", "part"])
def test_an_engine_that_fails_at_any_bucket_takes_all_ranks_out_and_the_next_push_is_right(
    site: Callable[..., Site], weights: dict[str, Tensor], victim: Target
) -> None:
    """Called in the sender's own process; in processes of their own: test_push_killed.py."""
    there = site("local", FORMATS[2], Mesh(tp=2))
    failed = 0
    for at in range(1, 100):
        seen = [0]

        def fault(bucket: Bucket, at: int = at, seen: list[int] = seen) -> Bucket:
            seen[0] += 1
            if seen[0] == at:
                raise EngineLostError(victim.engine, "killed")
            return bucket

        there.keepers[victim].fault = fault
        reports = there.push(moved(weights, 0.01 * at), 2 * at)
        there.keepers[victim].fault = lambda bucket: bucket
        if seen[0] < at:
            break  # beyond its last bucket
        failed += 1
        assert sorted(type(report).__name__ for report in reports) == ["AbandonedError", "EngineLostError"]
        assert all(keeper.served is None for keeper in there.keepers.values())
        assert all(isinstance(report, SyncReport) for report in there.push(weights, 2 * at + 1))
        assert_served(there, weights)
    assert failed > 3


@pytest.mark.parametrize("rank", [0, 3])
def test_a_rank_that_cannot_read_its_weights_takes_all_out(site: Callable[..., Site], weights: dict[str, Tensor], rank: int) -> None:
    there = site("local", FORMATS[1], Mesh(tp=2, pp=2))
    names = [e.name for e in there.routes(weights).manifest.entries if any(p.rank == rank for p in e.pieces)]
    for version, name in enumerate(names[:: max(1, len(names) // 6)]):

        def fault(found: str, name: str = name) -> None:
            if found == name:
                raise MemoryError(name)

        there.fault = lambda r: fault if r == rank else None
        reports = there.push(weights, 2 * version, strong=False)
        assert isinstance(reports[rank], MemoryError)
        assert all(isinstance(reports[r], AbandonedError) for r in range(4) if r != rank)
        there.fault = lambda r: None
        assert all(isinstance(report, SyncReport) for report in there.push(weights, 2 * version + 1, strong=False))
        assert_served(there, weights)


def test_a_rank_that_dies_counts_as_a_lost_trainer_within_the_deadline(site: Callable[..., Site], weights: dict[str, Tensor]) -> None:
    """It never comes to the next vote: the others do not wait longer than the group's timeout, and say what the trainer is."""
    there = site("local", FORMATS[1], Mesh(tp=2), timeout_s=3.0)

    class Dies(BaseException):
        """No Exception: the rank is gone, it does not vote."""

    def gone(name: str) -> None:
        raise Dies

    there.fault = lambda r: gone if r == 1 else None
    reports = there.push(weights, 0)
    assert isinstance(reports[1], Dies) and isinstance(reports[0], TrainerLostError)
    assert all(keeper.served is None for keeper in there.keepers.values())
