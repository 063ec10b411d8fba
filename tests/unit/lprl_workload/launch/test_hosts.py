"""What runs inside an actor process."""

from typing import Any

import pytest

from lprl_workload.launch import hosts
from lprl_workload.launch.ray_crew import call
from lprl_workload.process.errors import ServerLostError
from lprl_workload.train.actor import TrainActor


def test_an_engine_is_closed_before_the_one_that_takes_its_place_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the fallback to BF16: two engines do not fit one GPU."""
    seen: list[str] = []

    class Engine:
        def __init__(self, fmt: str) -> None:
            self.fmt = fmt
            seen.append(f"build {fmt}")

        def close(self) -> None:
            seen.append(f"close {self.fmt}")

    monkeypatch.setattr(hosts, "make_engine", lambda run, paths, fmt, device: Engine(fmt))
    monkeypatch.setattr(hosts, "set_up_process", lambda: None)
    monkeypatch.setattr(hosts, "load_engine", lambda run: None)
    monkeypatch.setattr(hosts, "make_draw", lambda run, paths: None)
    host: Any = hosts.EngineHost()
    host.set_up(None, None, "fp8", "cpu")
    host.set_up(None, None, "bf16", "cpu")
    assert seen == ["build fp8", "close fp8", "build bf16"]
    assert host.engine.fmt == "bf16"


def test_a_host_whose_new_engine_cannot_be_built_serves_no_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Engine:
        def close(self) -> None:
            pass

    built = iter([Engine(), MemoryError()])

    def make(*arguments: Any) -> Any:
        found = next(built)
        if isinstance(found, MemoryError):
            raise found
        return found

    monkeypatch.setattr(hosts, "make_engine", make)
    monkeypatch.setattr(hosts, "set_up_process", lambda: None)
    monkeypatch.setattr(hosts, "load_engine", lambda run: None)
    monkeypatch.setattr(hosts, "make_draw", lambda run, paths: None)
    host: Any = hosts.EngineHost()
    host.set_up(None, None, "fp8", "cpu")
    with pytest.raises(MemoryError):
        host.set_up(None, None, "bf16", "cpu")
    with pytest.raises(AssertionError):
        _ = host.engine


def test_what_a_process_holds_is_asked_by_name_and_its_asynchronous_methods_are_waited_for() -> None:
    class Engine:
        async def sleep(self, parts: frozenset[str]) -> str:
            return f"asleep {sorted(parts)}"

        def probe(self, ids: list[int]) -> int:
            return len(ids)

    host: Any = hosts.EngineHost()
    host._engine = Engine()
    assert host.ask("sleep", frozenset({"kv"})) == "asleep ['kv']"
    assert host.ask("probe", ids=[1, 2]) == 2


def test_aborting_ends_what_episodes_wait_for_and_what_the_engine_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Engine:
        async def abort(self) -> None:
            seen.append("engine")

    monkeypatch.setattr(hosts, "abort_episodes", seen.append)
    host: Any = hosts.EngineHost()
    host._engine, host._draw = Engine(), "episodes"
    host.abort()
    assert seen == ["episodes", "engine"]


def test_a_call_goes_to_the_hosts_own_method_where_it_has_one() -> None:
    """TrainHost.probe does more than TrainActor's logprobs; TrainActor.set_correction needs nobody in between."""

    class Method:
        def __init__(self, name: str) -> None:
            self.name = name

        def remote(self, *given: Any) -> tuple[Any, ...]:
            return (self.name, *given)

    class Handle:
        probe, ask = Method("probe"), Method("ask")

    assert call(Handle(), hosts.TrainHost.probe, [1]) == ("probe", [1])
    assert call(Handle(), TrainActor.set_correction, True) == ("ask", "set_correction", True)


def test_an_engine_whose_server_is_lost_answers_with_the_error_and_is_found_by_whoever_asks_how_it_is() -> None:
    lost = ServerLostError("SGLang at http://127.0.0.1:1 is lost: killed by signal 9")

    class Engine:
        def lost(self) -> Exception | None:
            return lost

    async def draw(*_: Any) -> list[Any]:
        raise lost

    host: Any = hosts.EngineHost()
    host.moved()
    host._engine, host._draw = Engine(), draw
    assert host.generate([None, None], None) == [lost, None, None], "as many objects as a call that went well"
    with pytest.raises(ServerLostError, match="signal 9"):
        host.moved()


def test_ranks_are_numbered_node_by_node_and_group_by_group() -> None:
    """Addresses say nothing of racks: what a queue keeps together is known by its group."""
    at = [("c", "10.0.0.3", 0), ("a", "10.0.0.1", 1), ("c", "10.0.0.3", 0), ("b", "10.0.0.2", 0), ("a", "10.0.0.1", 1)]
    places = [hosts.Place(node, address, pid, group) for pid, (node, address, group) in enumerate(at)]
    assert [places[n].node for n in hosts.node_by_node(places)] == ["b", "c", "c", "a", "a"]
