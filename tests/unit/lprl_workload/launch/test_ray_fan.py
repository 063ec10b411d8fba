"""How a bucket reaches engines on the sender's node and on others: GPU memory is handed over within a node only."""

import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from lprl_workload.config import RankInfo
from lprl_workload.data import Bucket
from lprl_workload.launch.hosts import EngineHost, TrainHost
from lprl_workload.launch.ray_fan import ObjectStoreTransport, Seat
from lprl_workload.process.errors import DeadlineError
from lprl_workload.sync.routes import Target
from lprl_workload.sync.transport_broadcast import BroadcastGroup, Meeting, abandon, serve_store


class GpuBytes:
    """A buffer in a GPU's memory, as far as a fan looks at it."""

    is_cuda = True

    def __init__(self, data: torch.Tensor) -> None:
        self._data = data

    def cpu(self) -> torch.Tensor:
        return self._data


class Method:
    def __init__(self, log: list[tuple[str, Any]], name: str) -> None:
        self._log, self._name = log, name

    def remote(self, argument: Any) -> str:
        self._log.append((self._name, argument))
        return self._name


class Actor:
    def __init__(self) -> None:
        self.log: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Method:
        return Method(self.log, name)


class NoRay:
    """put, share and wait without Ray and CUDA."""

    def put(self, stored: Any) -> Any:
        return ("stored", stored[1].tolist())

    def share(self, bucket: Bucket) -> Any:
        assert bucket.data.is_cuda
        return "handle"

    def wait(self, refs: Sequence[Any], numbers: Sequence[int]) -> None:
        assert len(refs) == len(numbers)


DATA = torch.tensor([1, 2, 3], dtype=torch.uint8)


TO = [Target(0), Target(1)]


def transport(actors: list[Actor], nodes: tuple[str, ...]) -> ObjectStoreTransport:
    seats = {number: Seat(actor, node) for number, (actor, node) in enumerate(zip(actors, nodes, strict=True))}
    store: Any = NoRay()
    return ObjectStoreTransport(seats, "mine", store)


@pytest.mark.parametrize("nodes", [("mine", "other"), ("other", "third"), ("mine", "mine")])
def test_a_gpu_bucket_goes_by_handle_within_the_node_and_by_host_copy_elsewhere(nodes: tuple[str, ...]) -> None:
    actors = [Actor(), Actor()]
    data: Any = GpuBytes(DATA)
    transport(actors, nodes).send(Bucket((), data), TO)
    by_handle, by_copy = [("load_handle", "handle")], [("load_stored", ("stored", [1, 2, 3]))]
    assert [actor.log for actor in actors] == [by_handle if node == "mine" else by_copy for node in nodes]


def test_a_bucket_in_host_memory_always_goes_through_the_object_store() -> None:
    actors = [Actor(), Actor()]
    transport(actors, ("mine", "other")).send(Bucket((), DATA), TO)
    assert all(actor.log == [("load_stored", ("stored", [1, 2, 3]))] for actor in actors)


def test_only_the_first_sender_tells_the_engines_that_a_push_was_given_up() -> None:
    actors = [Actor(), Actor()]
    ends = transport(actors, ("mine", "other"))
    ends.abort("why", first=False)
    assert all(actor.log == [] for actor in actors)
    ends.abort("why", first=True)
    assert all(actor.log == [("abort_update", "why")] for actor in actors)


def test_one_engine_that_does_not_come_lets_everybody_else_go_at_once() -> None:
    store = serve_store(60.0, "127.0.0.1")
    meeting = Meeting("127.0.0.1", store.port, 3, 60.0, "m")
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(BroadcastGroup, meeting, rank, torch.device("cpu")) for rank in (0, 1)]
        abandon(meeting)
        for call in waiting:
            with pytest.raises(DeadlineError, match="given up, somebody will not come"):
                call.result(timeout=50)


def test_meeting_again_closes_what_there_was() -> None:
    """A rank that serves a new meeting point, and an engine that joins one, leave their old groups: no store, socket or thread stays."""
    rank, engine = TrainHost(), EngineHost()
    rank._rank, engine._device = RankInfo(0, 1, "cpu"), torch.device("cpu")
    groups = []
    with ThreadPoolExecutor(1) as pool:
        for number in range(3):
            meeting = rank.open_meeting(2, f"m{number}", 180.0, "127.0.0.1")
            joining = pool.submit(engine.join_broadcast, [meeting], 1)
            rank.join_broadcast(meeting)
            joining.result(timeout=180)
            groups.append((rank._group, engine._groups[0]))
    assert len(engine._groups) == 1
    assert all(mine is not None and mine.closed and theirs.closed for mine, theirs in groups[:-1])
    assert groups[-1][0] is not None and not groups[-1][0].closed


def test_the_ranks_meeting_port_is_taken_from_the_moment_it_is_named() -> None:

    host = TrainHost()
    port = host.open_rendezvous()
    with socket.socket() as sock, pytest.raises(OSError, match="in use"):
        sock.bind(("", port))
