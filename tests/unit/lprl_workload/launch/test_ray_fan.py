"""How a bucket reaches engines on the sender's node and on others: GPU memory is handed over within a node only."""

import socket
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from lprl_workload.data import Bucket
from lprl_workload.launch.hosts import TrainHost
from lprl_workload.launch.ray_fan import ObjectStoreFan


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


@pytest.mark.parametrize("near", [(True, False), (False, False), (True, True)])
def test_a_gpu_bucket_goes_by_handle_within_the_node_and_by_host_copy_elsewhere(near: tuple[bool, ...]) -> None:
    actors = [Actor(), Actor()]
    fan = ObjectStoreFan(actors, [0, 1], near, NoRay())  # type: ignore[arg-type]
    fan.load_bucket(Bucket((), GpuBytes(DATA)))  # type: ignore[arg-type]
    by_handle, by_copy = [("load_handle", "handle")], [("load_stored", ("stored", [1, 2, 3]))]
    assert [actor.log for actor in actors] == [by_handle if n else by_copy for n in near]


def test_a_bucket_in_host_memory_always_goes_through_the_object_store() -> None:
    actors = [Actor(), Actor()]
    ObjectStoreFan(actors, [0, 1], (True, False), NoRay()).load_bucket(Bucket((), DATA))  # type: ignore[arg-type]
    assert all(actor.log == [("load_stored", ("stored", [1, 2, 3]))] for actor in actors)


def test_the_ranks_meeting_port_is_taken_from_the_moment_it_is_named() -> None:

    host = TrainHost()
    port = host.open_rendezvous()
    with socket.socket() as sock, pytest.raises(OSError, match="in use"):
        sock.bind(("", port))
