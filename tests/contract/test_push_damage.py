"""What arrives is not what was sent: refused before an engine serves it, and healed by the next push."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.contract.push_site import FORMATS, Site, assert_served
from torch import Tensor

from lprl_fixtures.pushes import Keeper, Mesh
from lprl_workload.data import Bucket, SyncReport
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.sync.routes import Target
from lprl_workload.sync.transport_disk import receive_from


def flipped(bucket: Bucket) -> Bucket:
    data = bucket.data.clone()
    data[0] ^= 1
    return Bucket(bucket.entries, data)


def swapped(bucket: Bucket) -> Bucket:
    """Two tensors of equal dtype and shape change places, such as two experts."""
    entries = list(bucket.entries)
    for a, one in enumerate(entries):
        for b, two in enumerate(entries[:a]):
            if (one.dtype, one.shape) == (two.dtype, two.shape) and ".experts." in one.name:
                entries[a], entries[b] = (
                    type(one)(two.name, one.dtype, one.shape, one.offset, one.nbytes),
                    type(two)(one.name, two.dtype, two.shape, two.offset, two.nbytes),
                )
                return Bucket(tuple(entries), bucket.data)
    return bucket


def stale_scale(bucket: Bucket) -> Bucket:
    """A scale as it was a version ago: plausible, and wrong in the last bits only."""
    data = bucket.data.clone()
    for entry in bucket.entries:
        if "weight_scale" in entry.name:
            values = data[entry.offset : entry.offset + entry.nbytes].view(torch.float32)
            values.mul_(1.0 + 2**-20)
            break
    return Bucket(bucket.entries, data)


@pytest.mark.parametrize("damage", [flipped, swapped, stale_scale])
@pytest.mark.parametrize("way", ["local", "disk", "broadcast"])
def test_damage_of_any_bucket_is_refused_by_a_full_verification(
    site: Callable[..., Site], weights: dict[str, Tensor], way: str, damage: Callable[[Bucket], Bucket]
) -> None:
    there = site(way, FORMATS[1], Mesh(tp=2))
    victim = there.keepers[Target(0)]
    version, seen = 0, 0
    for at in range(0, 12, 1 if way == "local" else 5):
        count = [0]

        def fault(bucket: Bucket, at: int = at, count: list[int] = count) -> Bucket:
            count[0] += 1
            return damage(bucket) if count[0] == at + 1 else bucket

        victim.fault = fault
        reports = there.push(weights, version)
        victim.fault = lambda bucket: bucket
        hurt = any(isinstance(report, WeightMismatchError) for report in reports)
        assert hurt == (victim.served is None)
        seen += hurt
        if hurt:
            assert any("differ from the sender's" in str(report) for report in reports), reports
            assert all(isinstance(report, SyncReport) for report in there.push(weights, version + 1))
        assert_served(there, weights)
        version += 2
    assert seen


@pytest.mark.parametrize("way", ["local", "broadcast"])
def test_counts_alone_refuse_a_lost_bucket(site: Callable[..., Site], weights: dict[str, Tensor], way: str) -> None:
    there = site(way, FORMATS[4], Mesh(tp=2))
    there.keepers[Target(1, 1)].fault = lambda bucket: Bucket((), bucket.data[:0])
    reports = there.push(weights, 0, strong=False)
    assert any("tensors of" in str(report) and "were sent" in str(report) for report in reports), reports
    assert there.keepers[Target(1, 1)].served is None


def test_pieces_put_together_wrongly_are_refused_before_an_engine_serves_them(
    site: Callable[..., Site], weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of different layers, of equal shapes, in one tensor: what an exchange out of step gives."""
    from lprl_workload.sync.peers import GroupPeers

    exchange = GroupPeers.exchange

    def rotated(self: GroupPeers, out: Any, sizes: Any, device: torch.device) -> list[Tensor]:
        return [part.roll(2) for part in exchange(self, out, sizes, device)]

    monkeypatch.setattr(GroupPeers, "exchange", rotated)
    there = site("local", FORMATS[0], Mesh(tp=2))
    assert all("are not what the ranks' pieces of them were" in str(report) for report in there.push(weights, 0))
    assert all(keeper.served is None for keeper in there.keepers.values())


@pytest.mark.parametrize(
    "error", [MemoryError("CUDA out of memory"), KeyError("x"), WeightMismatchError("y")], ids=lambda e: type(e).__name__
)
def test_a_receiver_survives_whatever_its_engine_raises(site: Callable[..., Site], weights: dict[str, Tensor], error: Exception) -> None:
    there = site("broadcast", FORMATS[1], Mesh(tp=2))

    def fault(bucket: Bucket) -> Bucket:
        raise error

    there.keepers[Target(1, 0)].fault = fault
    reports = there.push(weights, 0)
    assert any(report is error for report in reports), reports
    assert there.keepers[Target(1, 0)].served is None
    there.keepers[Target(1, 0)].fault = lambda bucket: bucket
    assert all(isinstance(report, SyncReport) for report in there.push(weights, 1))
    assert_served(there, weights)


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_file_that_is_damaged_on_the_disk_is_refused(
    site: Callable[..., Site], weights: dict[str, Tensor], damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its writing and its reading: by what lies between two machines and a disk."""
    there = site("disk", FORMATS[1], Mesh(tp=2))
    announced = there._announced

    def damaged(version: int) -> Callable[[], None]:
        file = sorted((there.root / f"v{version:08d}").glob("*.safetensors"))[at]
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.unlink() if damage == "gone" else file.write_bytes(bytes(data if damage == "flipped" else data[:-1]))
        return announced(version)

    monkeypatch.setattr(there, "_announced", damaged)
    for at in range(4):
        reports = there.push(weights, at)
        assert any(isinstance(report, WeightMismatchError) for report in reports), reports
        assert any(keeper.served is None for keeper in there.keepers.values())
    monkeypatch.setattr(there, "_announced", announced)
    assert all(isinstance(report, SyncReport) for report in there.push(weights, 9))
    assert_served(there, weights)


def test_disk_keeps_one_version_and_refuses_another(site: Callable[..., Site], weights: dict[str, Tensor]) -> None:
    there = site("disk", FORMATS[0], Mesh())
    for version in (0, 1):
        there.push(weights, version)
    assert [path.name for path in there.root.iterdir()] == ["v00000001"]
    (there.root / "v00000001").rename(there.root / "v00000005")
    with pytest.raises(WeightMismatchError, match="manifest says version 1"):
        receive_from(there.root, Keeper(), 5, Target(0))
    with pytest.raises(WeightMismatchError, match="no readable weights of version 7"):
        receive_from(there.root, Keeper(), 7, Target(0))
