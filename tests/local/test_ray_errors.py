"""Errors raised in other processes arrive as what they are: whose process, the last words, and who has to mend it."""

import errno
import os
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from tests.local.conftest import RAY_ENV, Ray

from lprl_api.errors import StorageFullError, UserError
from lprl_workload.launch.hosts import Place
from lprl_workload.launch.ray_crew import Crew, call
from lprl_workload.launch.ray_link import CONNECT_DEADLINE_S, ActorLostError, get_all, place, wait_healthy
from lprl_workload.launch.ray_vigil import Vigil
from lprl_workload.launch.stillness import Limits
from lprl_workload.process.errors import DamagedElsewhereError, DamagedError, EngineLostError, FailedElsewhereError, RemoteError
from lprl_workload.process.movement import Moved

pytestmark = pytest.mark.ray


class Unpicklable(Exception):
    """Cannot cross processes as itself."""

    def __init__(self, one: str, two: object) -> None:
        super().__init__(f"{one} with two")
        self.two = two


class Host:
    """Raises what it is told to."""

    def fail(self, what: str) -> None:
        if what == "chain":
            try:
                {}["text_config"]
            except KeyError as cause:
                raise ValueError("config.json:\n  no text_config") from cause
        errors: dict[str, BaseException] = {
            "user": UserError("tokenizer.json: no vocabulary", "copy the folder again"),
            "full": StorageFullError("volume ckpt is full"),
            "permission": PermissionError(errno.EACCES, "Permission denied", "/v/x"),
            "attribute": AttributeError("'C' object has no attribute 'decoder'"),
            "memory": RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
            "gloo": RuntimeError("[gloo] Connection closed by peer"),
            "damaged": DamagedError("/v/step-000002/trainer/a: no such file"),
            "damaged elsewhere": DamagedElsewhereError("1 other ranks found their part damaged"),
            "io": OSError(errno.EIO, "Input/output error", "/v/step-000002/trainer/a"),
            "elsewhere": FailedElsewhereError("1 other ranks could not read their part"),
            "unpicklable": Unpicklable("tensor 7", Host.fail.__globals__["Unpicklable"]),
        }
        raise errors[what]

    def die(self) -> None:
        os._exit(1)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def lost(self, seconds: float) -> None:
        """Find out after a while which engine is lost."""
        time.sleep(seconds)
        raise EngineLostError(3, "it did not move for 10 s")

    def moved(self) -> Moved:
        """Answer beside whatever it is at, and never move."""
        return Moved(0, 0)


class Unborn:
    """Cannot be made where it is placed."""

    def __init__(self) -> None:
        raise ModuleNotFoundError("No module named 'engine'")


@pytest.fixture(scope="module")
def hosts(ray_head: Ray) -> Iterator[list[Any]]:
    os.environ.update(RAY_ENV)
    wait_healthy(ray_head.address, CONNECT_DEADLINE_S)
    ray.init(address=ray_head.address, log_to_driver=False)
    actor = ray.remote(num_cpus=0, max_restarts=0)(Host)
    yield [actor.remote() for _ in range(2)]
    ray.shutdown()


CASES = [
    ("user", UserError, "tokenizer.json: no vocabulary", ""),
    ("full", StorageFullError, "volume ckpt is full", ""),
    ("permission", PermissionError, "[Errno 13] Permission denied: '/v/x'", ""),
    ("attribute", RemoteError, "load: rank 1: AttributeError: 'C' object has no attribute 'decoder'", "program"),
    ("chain", RemoteError, "load: rank 1: ValueError: config.json: no text_config", "program"),
    ("memory", RemoteError, "load: rank 1: RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB", "memory"),
    ("gloo", RemoteError, "load: rank 1: RuntimeError: [gloo] Connection closed by peer", "chance"),
    ("unpicklable", RemoteError, "load: rank 1: ", "chance"),
]


@pytest.mark.parametrize(("what", "kind", "words", "blame"), CASES, ids=[c[0] for c in CASES])
def test_what_an_actor_raises_arrives_in_one_line(
    hosts: list[Any], what: str, kind: type[Exception], words: str, blame: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lprl_workload.launch.ray_link.LATE_VERDICT_S", 0.2)
    with pytest.raises(kind) as caught:
        get_all([hosts[0].sleep.remote(0), hosts[1].fail.remote(what)], "load", who=lambda n: f"rank {n}")
    assert str(caught.value).startswith(words) and "\n" not in str(caught.value)
    assert getattr(caught.value, "blame", "") == blame
    if isinstance(caught.value, UserError) and what == "user":
        assert caught.value.remedy == "copy the folder again"


ECHOES = [
    ("io", "elsewhere", RemoteError, "load: process 0: OSError: [Errno 5] Input/output error: '/v/step-000002/trainer/a'"),
    ("damaged", "damaged elsewhere", DamagedError, "/v/step-000002/trainer/a: no such file"),
    ("io", "damaged elsewhere", DamagedElsewhereError, "1 other ranks found their part damaged"),
    ("io", "damaged", DamagedError, "/v/step-000002/trainer/a: no such file"),
]


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(("one", "other", "kind", "words"), ECHOES, ids=[f"{c[0]}, {c[1]}" for c in ECHOES])
def test_what_echoes_another_ranks_failure_does_not_replace_it(
    hosts: list[Any], one: str, other: str, kind: type[Exception], words: str, swapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lprl_workload.launch.ray_link.LATE_VERDICT_S", 20.0)
    calls = [hosts[0].fail.remote(one), hosts[1].fail.remote(other)]
    ray.wait(calls, num_returns=2, timeout=60)
    with pytest.raises(kind) as caught:
        get_all(calls[::-1] if swapped else calls, "load")
    assert type(caught.value) is kind and str(caught.value) == words.replace("process 0", f"process {int(swapped)}")


def test_a_users_error_is_told_though_another_rank_dies_of_it(hosts: list[Any]) -> None:
    victim = ray.remote(num_cpus=0, max_restarts=0)(Host).remote()
    calls = [hosts[0].fail.remote("user"), victim.sleep.remote(60)]
    before = time.monotonic()
    with pytest.raises(UserError, match="no vocabulary"):
        get_all(calls, "load")
    assert time.monotonic() - before < 20, "nobody waits for ranks that wait for the one that failed"
    ray.kill(victim)


def test_a_lost_process_is_told_by_name_and_how_it_ended() -> None:
    victim = ray.remote(num_cpus=0, max_restarts=0)(Host).remote()
    with pytest.raises(ActorLostError, match=r"^generate: engine 0: The actor died .*exit") as caught:
        get_all([victim.die.remote()], "generate", who=lambda n: f"engine {n}")
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, EngineLostError)


def test_a_crew_names_whom_it_asked_and_makes_its_own_error_of_a_loss(hosts: list[Any]) -> None:
    victim = ray.remote(num_cpus=0, max_restarts=0)(Host).remote()
    places = [None, Place("n", "10.0.0.7", 1), Place("n", "10.0.0.8", 1)]
    crew = Crew("engine", EngineLostError, None, [*hosts, victim], places, "push: ")
    assert crew.gather([call(hosts[1], Host.sleep, 0)], "standing", [1]) == [None]
    with pytest.raises(RemoteError, match=r"^push: load: engine 1 on 10\.0\.0\.7: AttributeError"):
        crew.gather([call(hosts[1], Host.fail, "attribute")], "load", [1])
    with pytest.raises(EngineLostError, match=r"^push: load: engine 2 on 10\.0\.0\.8: The actor died") as caught:
        crew.gather([call(hosts[0], Host.sleep, 0), call(victim, Host.die)], "load", [0, 2])
    assert caught.value.engine == 2


def test_what_cannot_be_made_anywhere_is_not_placed_for_a_quarter_of_an_hour(hosts: list[Any]) -> None:
    with pytest.raises(RemoteError, match=r"placing engines: process 0: ModuleNotFoundError: No module named 'engine'$") as caught:
        place([ray.remote(num_cpus=0)(Unborn).remote], "placing engines", str)
    assert caught.value.blame == "program"


def test_what_another_process_knows_of_a_failure_is_told_rather_than_the_connection_that_broke_of_it(hosts: list[Any]) -> None:
    """A rank whose broadcast breaks off is heard first; the one that asked the engines says which of them is lost."""
    calls = [hosts[0].fail.remote("gloo"), hosts[1].lost.remote(1.0)]
    with pytest.raises(EngineLostError, match="it did not move for 10 s"):
        get_all(calls, "push", who=lambda n: f"rank {n}")


@pytest.mark.parametrize("together", [False, True], ids=["engines", "ranks"])
def test_an_engine_that_hangs_is_told_though_another_failed_of_it_first(hosts: list[Any], together: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr("lprl_workload.launch.ray_link.LATE_VERDICT_S", 60.0 if not together else 2.0)
    monkeypatch.setattr("lprl_workload.launch.stillness.VERDICT_S", 2.0)
    hanging = ray.remote(num_cpus=0, max_restarts=0, concurrency_groups={"health": 1})(Host).remote()
    handles = [hosts[0], hanging]
    calls = [hosts[0].fail.remote("gloo"), hanging.sleep.remote(300)]
    with pytest.raises(RemoteError if together else ActorLostError) as caught:
        get_all(calls, "push", who=lambda n: f"engine {n}", vigil=Vigil(handles, Limits(600, 600, together)))
    said = "engine 0: RuntimeError: .gloo." if together else "engine 1 did not (?:move|answer) for 2 s"
    assert re.search(said, str(caught.value))
    ray.kill(hanging)
