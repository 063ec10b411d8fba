"""A run begins when its workers are there: it waits as long as that takes, and goes quietly when asked to."""

import pytest

from lprl_api.wire.runconfig import Ranks
from lprl_workload.launch import ray_room
from lprl_workload.process.errors import StopAskedError

RANKS = Ranks(
    placement="split",
    accelerator="cpu",
    nodes=3,
    slots_per_node=1,
    trainer_ranks=2,
    data_parallel=2,
    engines=1,
    slots_per_engine=1,
    trainer_nodes=2,
    rollout_nodes=1,
)
FULL = {"lprl_trainer": 2.0, "lprl_rollout": 1.0, "CPU": 0.0}


@pytest.mark.parametrize(
    ("offered", "words"),
    [
        pytest.param({}, "0/2 lprl_trainer, 0/1 lprl_rollout", id="head-only"),
        pytest.param({"lprl_trainer": 1.0, "lprl_rollout": 1.0}, "1/2 lprl_trainer", id="one-short"),
        pytest.param(FULL, "", id="all"),
    ],
)
def test_missing_counts_slots(offered: dict[str, float], words: str) -> None:
    assert ray_room.missing(RANKS, offered) == words


@pytest.fixture
def joining(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster whose workers join one after the other."""
    answers = iter([{}, {"lprl_trainer": 1.0}, FULL])
    monkeypatch.setattr(ray_room.ray, "cluster_resources", lambda: next(answers))
    monkeypatch.setattr(ray_room, "POLL_S", 0)


@pytest.mark.usefixtures("joining")
def test_tells_what_is_missing_until_the_last_worker_joined() -> None:
    heard: list[str] = []
    ray_room.wait_for_room(RANKS, heard.append)
    assert heard == ["0/2 lprl_trainer, 0/1 lprl_rollout", "1/2 lprl_trainer, 0/1 lprl_rollout", ""]


@pytest.mark.usefixtures("joining")
def test_stops_waiting_when_asked_to() -> None:
    def waits(lacking: str) -> None:
        if lacking.startswith("1/2"):
            raise StopAskedError(lacking)

    with pytest.raises(StopAskedError, match="1/2 lprl_trainer"):
        ray_room.wait_for_room(RANKS, waits)
