"""Processes of a weight push die (-9), and disks and engines fail, at every bucket: the next push is right, bit for bit, and nobody waits.

Two ranks that cut every matrix between them send to three engine ranks, over gloo broadcasts and through a folder. (Ray's object store:
tests/local/test_train_faults.py; what fails without a process of its own: test_weight_push.py.)
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.pushing import Driver, Fault, Outcome, Plan, expected

from lprl_api.model.formats import Fp8Channel
from lprl_api.model.hf_config import shape_from_config
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_fixtures.pushes import Mesh
from lprl_workload.quant.select import Selection
from lprl_workload.sync.manifest import ServedAs

SOON_S = 20.0
"""A third of the time that a message may take: whoever waits for the dead hears of it, also on a busy machine."""


@pytest.fixture(params=["broadcast", "disk"])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driver]:
    generate_model(tmp_path / "model", ModelOptions("qwen3-moe", "tiny"))
    fmt = Fp8Channel()
    shape = shape_from_config(json.loads((tmp_path / "model" / "config.json").read_text()))
    plan = Plan(request.param, tmp_path / "model", tmp_path / "sync", ServedAs(fmt, Selection(fmt, shape)), Mesh(tp=2))
    found = Driver(plan)
    yield found
    found.close()


def went_well(found: Outcome, driver: Driver, version: int) -> None:
    assert not any(found.errors.values()), found.errors
    assert found.served == expected(driver.plan, version)


def all_out(found: Outcome, fault: Fault, driver: Driver, version: int) -> None:
    """Nobody went on without the one that failed, and nobody serves what was not committed: an engine that has all of it may."""
    assert found.seconds < SOON_S, (fault, found)
    assert found.errors[fault.who] == ("dead" if fault.how == "killed" else found.errors[fault.who]) != "", (fault, found)
    ranks = {who: error for who, error in found.errors.items() if who.startswith("rank")}
    assert all(ranks.values()), (fault, found)
    if fault.who.startswith("rank") and fault.how == "killed":
        assert {error for who, error in ranks.items() if who != fault.who} == {"TrainerLostError"}, found
    elif fault.who.startswith("engine") and fault.how == "killed":
        assert ranks == {"rank 0": "EngineLostError", "rank 1": ranks["rank 1"]}, found
    want = expected(driver.plan, version)
    assert all(served in ("", want[who]) for who, served in found.served.items()), (fault, found)
    assert not found.served.get(fault.who)
    if fault.how == "killed" and driver.plan.way == "broadcast":
        assert not any(found.served.values()), (fault, found)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "OSError"])
def test_whoever_fails_at_any_bucket_takes_all_out_and_the_next_push_is_right(driver: Driver, how: str) -> None:
    first = driver.push(0, strong=True)
    went_well(first, driver, 0)
    version = 1
    for who in ("rank 0", "rank 1", "engine 0", "engine 2"):
        for at in range(1, 1 + first.buckets[who]):
            fault = Fault(who, how, at)
            all_out(driver.push(version, fault=fault), fault, driver, version)
            went_well(driver.push(version + 1), driver, version + 1)
            version += 2
    assert version > 20
