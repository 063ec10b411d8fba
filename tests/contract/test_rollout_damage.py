"""Weights that arrive damaged on a real engine: refused with a tensor's name, no request is served, and the next whole push heals it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.contract.rollout_bench import DAMAGED, bench, drawn, requests, served_tensors, told

from lprl_workload.data import NamedTensor
from lprl_workload.launch.hosts import EngineHost
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.sync.buckets import as_bytes

Tensors = list[NamedTensor]
SCALE = "weight_scale"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def flipped(now: Tensors, before: Tensors) -> Tensors:
    """One bit of the last tensor."""
    data = as_bytes(now[-1].tensor).clone()
    data[-1] ^= 1
    return [*now[:-1], NamedTensor(now[-1].name, data.view(now[-1].tensor.dtype).reshape(now[-1].tensor.shape))]


def swapped(now: Tensors, before: Tensors) -> Tensors:
    """Experts 0 and 1 of a layer, whole."""
    found = {item.name: item.tensor for item in now}
    pairs = [(name, name.replace(".experts.0.", ".experts.1.")) for name in found if ".layers.1." in name and ".experts.0." in name]
    assert pairs and all(not torch.equal(as_bytes(found[one]), as_bytes(two_)) for one, two in pairs[:1] for two_ in [found[two]])
    change = {one: found[two] for one, two in pairs} | {two: found[one] for one, two in pairs}
    return [NamedTensor(name, change.get(name, tensor)) for name, tensor in found.items()]


def stale(now: Tensors, before: Tensors) -> Tensors:
    """One scale as it was a version ago, under codes of now."""
    old = {item.name: item.tensor for item in before}
    name = next(item.name for item in now if SCALE in item.name)
    return [NamedTensor(item.name, old[name] if item.name == name else item.tensor) for item in now]


@pytest.mark.parametrize("damage", [flipped, swapped, stale])
@pytest.mark.parametrize(("engine", "architecture", "fmt"), DAMAGED)
def test_damage_is_refused_before_a_request_is_served(
    tmp_path: Path, engine: str, architecture: str, fmt: str, damage: Callable[[Tensors, Tensors], Tensors]
) -> None:
    made = bench(tmp_path, engine, architecture, fmt)
    asked, now = requests(2), served_tensors(made.folder, made.fmt, made.shape, 5.5)
    made.push(0)
    want = drawn(made.engine, asked, made.free)
    with pytest.raises(WeightMismatchError, match=r"the bytes of \d+ tensors differ from the sender's, such as \S+"):
        made.push(1, now, damage(now, made.tensors))
    assert not made.engine.healthy() and made.engine.weight_version == 0
    with pytest.raises(WeightMismatchError):
        drawn(made.engine, asked, made.free)
    made.push(2)
    assert told(drawn(made.engine, asked, made.free)) == told(want)
    made.done()


def test_a_bucket_of_a_peers_weights_that_arrives_damaged_is_refused(tmp_path: Path) -> None:
    """What a returning engine copies from one that serves is compared bucket by bucket."""
    made = bench(tmp_path, "torch")
    made.push(3)
    peer, returning = EngineHost(), EngineHost()
    peer._engine, peer._device = made.engine, torch.device("cpu")
    returning._engine, returning._device = bench(tmp_path, "torch").engine, torch.device("cpu")
    more, held = peer.next_held(1 << 14, True)
    assert more and held is not None
    entries, data, sums = held
    data[0] ^= 1
    with pytest.raises(WeightMismatchError, match="a bucket of another engine's weights arrived damaged"):
        returning.take_held(3, (entries, data, sums), True)
    assert returning.engine.weight_version == -1 and not returning.engine.healthy()
