"""A weight push over every transport, from any mesh to engines of one and two ranks: served bytes are the offline conversion's.

And when something fails at any bucket: all ranks leave together, nothing uncommitted is served, and the next push is right.
"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.model.hf_config import shape_from_config
from lprl_api.spec.precision import Scope
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_fixtures.pushes import Keeper, Mesh, Ranks, StandInSource, mesh_manifest
from lprl_workload.data import Bucket, SyncReport
from lprl_workload.hf.folder import read_folder
from lprl_workload.hf.slots import per_expert
from lprl_workload.process.errors import TrainerLostError, WeightMismatchError
from lprl_workload.quant.scheme import quantize
from lprl_workload.quant.select import Selection
from lprl_workload.sync.buckets import as_bytes
from lprl_workload.sync.manifest import ServedAs
from lprl_workload.sync.peers import AbandonedError, Peers
from lprl_workload.sync.routes import EngineLayout, Routes, Target, route
from lprl_workload.sync.session import Session, Transport, push
from lprl_workload.sync.transport_broadcast import BroadcastGroup, BroadcastTransport, Meeting, receive, serve_store
from lprl_workload.sync.transport_disk import DiskTransport, receive_from
from lprl_workload.sync.transport_local import LocalTransport

BUCKET_BYTES = 1 << 15
LAYERS, EXPERTS = 2, 4
FORMATS: list[WeightFormat] = [Bf16(), Fp8Block(), Fp8Channel(), Fp8Tensor(), Int4Group(group_size=32, scope=Scope.ALL_LINEAR)]
MESHES = [Mesh(), Mesh(tp=2), Mesh(tp=2, pp=2), Mesh(tp=2, ep=2, pp=2)]
WHOLE = EngineLayout(0)
TWO_RANKS = EngineLayout(1, 2, cuts=(("*o_proj.weight", 1), ("*norm.weight", 0)), experts=EXPERTS)
"""Experts dealt out, two kinds of tensors cut, the rest on both ranks."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    found = tmp_path_factory.mktemp("model")
    generate_model(found, ModelOptions("qwen3-moe", "tiny"))
    return found


@pytest.fixture(scope="module")
def weights(folder: Path) -> dict[str, Tensor]:
    return dict(sorted(item for stored in read_folder(folder) for item in per_expert(*stored)))


class Site:
    """A trainer of some mesh, two engines (three ranks), and one transport between them."""

    def __init__(self, way: str, folder: Path, fmt: WeightFormat, mesh: Mesh, tmp_path: Path, timeout_s: float = 20.0) -> None:
        shape = shape_from_config(json.loads((folder / "config.json").read_text()))
        self.way, self.root = way, tmp_path / "sync"
        self.layouts = [WHOLE, TWO_RANKS if isinstance(fmt, Bf16) else EngineLayout(1, 2, experts=EXPERTS)]
        self.served_as, self.mesh = ServedAs(fmt, Selection(fmt, shape)), mesh
        self.keepers = {Target(0, 0): Keeper(), Target(1, 0): Keeper(), Target(1, 1): Keeper()}
        self.ranks, self.pool, self.meetings = Ranks(mesh.ranks, timeout_s), ThreadPoolExecutor(12), 0
        self.spoil: Callable[[int, Transport], Transport] = lambda rank, transport: transport
        self.fault: Callable[[int], Callable[[str], None] | None] = lambda rank: None
        self._broken = True
        self._ends: dict[int, list[BroadcastGroup]] = {}

    @property
    def senders(self) -> tuple[int, ...]:
        """Two of them broadcast, where there are two."""
        return tuple(range(self.mesh.ranks))[:2] if self.way == "broadcast" else tuple(range(self.mesh.ranks))

    def routes(self, weights: dict[str, Tensor]) -> Routes:
        manifest = mesh_manifest(weights, self.mesh, LAYERS, EXPERTS)
        return route(manifest, self.layouts, BUCKET_BYTES, self.served_as, self.senders)

    def push(self, weights: dict[str, Tensor], version: int, strong: bool = True) -> list[SyncReport | BaseException]:
        routes = self.routes(weights)
        if self.way == "broadcast" and self._broken:
            self._meet()

        def act(rank: int, peers: Peers) -> SyncReport:
            source = StandInSource(weights, routes.manifest, rank, self.fault(rank))
            transport = self.spoil(rank, self._transport(rank, routes, version))
            return push(Session(routes, transport, peers), source, version, strong)

        found = self.ranks.together(act)
        self._broken = any(isinstance(report, BaseException) for report in found)
        return found

    def _transport(self, rank: int, routes: Routes, version: int) -> Transport:
        if self.way == "disk":
            return DiskTransport(self.root, rank, routes, version, lambda v: self._called(lambda t, k: receive_from(self.root, k, v, t)))
        if self.way == "broadcast" and rank in self.senders:
            return BroadcastTransport(
                self._ends[-1 - rank][0], lambda v, strong: self._called(lambda t, k: receive(self._ends[self._number(t)], k, v, strong, t))
            )
        return LocalTransport(self.keepers)

    def _number(self, target: Target) -> int:
        return 1 + list(self.keepers).index(target)

    def _called(self, call: Callable[[Target, Keeper], None]) -> Callable[[], None]:
        calls: list[Future[None]] = [self.pool.submit(call, target, keeper) for target, keeper in self.keepers.items()]

        def confirm() -> None:
            for error in [future.exception(timeout=60) for future in calls]:
                if error is not None:
                    raise error

        return confirm

    def _meet(self) -> None:
        self.meetings += 1
        world, device = 1 + len(self.keepers), torch.device("cpu")
        for groups in self._ends.values():
            for group in groups:
                group.close()
        stores = {sender: serve_store(20.0, "127.0.0.1") for sender in self.senders}
        meetings = {s: Meeting("127.0.0.1", store.port, world, 20.0, f"m{self.meetings}-{s}") for s, store in stores.items()}
        sending = {s: self.pool.submit(BroadcastGroup, meetings[s], 0, device, stores[s]) for s in self.senders}

        def join(number: int) -> list[BroadcastGroup]:
            return [BroadcastGroup(meeting, number, device) for meeting in meetings.values()]

        engines = {number: self.pool.submit(join, number) for number in range(1, world)}
        self._ends = {number: call.result() for number, call in engines.items()} | {-1 - s: [call.result()] for s, call in sending.items()}

    def close(self) -> None:
        self.ranks.close()
        self.pool.shutdown(wait=False, cancel_futures=True)


@pytest.fixture
def site(folder: Path, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(way: str, fmt: WeightFormat, mesh: Mesh, **options: Any) -> Site:
        made.append(Site(way, folder, fmt, mesh, tmp_path, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def converted(weights: dict[str, Tensor], served_as: ServedAs) -> dict[str, Tensor]:
    """The offline conversion of an export: the converter's own quantizer, tensor by tensor."""
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        selected = not isinstance(served_as.fmt, Bf16) and served_as.selection.selects(name, tuple(tensor.shape))
        found |= quantize(name, tensor, served_as.fmt) if selected else {name: tensor}
    return found


def assert_served(site: Site, weights: dict[str, Tensor]) -> None:
    """Every engine rank serves exactly its part of the conversion."""
    want = converted(weights, site.served_as)
    layouts = {layout.engine: layout for layout in site.layouts}
    for target, keeper in site.keepers.items():
        assert keeper.served is not None, target
        parts = {n: layouts[target.engine].part(target.rank, n, tuple(t.shape)) for n, t in want.items()}
        assert keeper.served.keys() == {name for name, part in parts.items() if part is not None}
        for name, found in keeper.served.items():
            exact = want[name][parts[name]] if parts[name] else want[name]
            assert found.dtype == exact.dtype and found.shape == exact.shape, name
            assert torch.equal(as_bytes(found), as_bytes(exact)), name


def moved(weights: dict[str, Tensor], by: float) -> dict[str, Tensor]:
    return {name: (tensor.float() * (1 + by)).to(tensor.dtype) for name, tensor in weights.items()}


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f.kind)
@pytest.mark.parametrize("mesh", MESHES, ids=lambda m: f"tp{m.tp}-ep{m.ep}-pp{m.pp}")
def test_served_bytes_are_the_offline_conversion(
    site: Callable[..., Site], weights: dict[str, Tensor], fmt: WeightFormat, mesh: Mesh
) -> None:
    there = site("local", fmt, mesh)
    for version, now in enumerate((weights, moved(weights, 0.1))):
        reports = there.push(now, version, strong=version == 0)
        assert [getattr(r, "version", r) for r in reports] == [version] * mesh.ranks
        assert len({(r.nbytes, r.tensors, r.relative_rms_error, r.checked) for r in reports if isinstance(r, SyncReport)}) == 1
        assert_served(there, now)


@pytest.mark.parametrize("way", ["disk", "broadcast"])
@pytest.mark.parametrize("mesh", [MESHES[0], MESHES[3]], ids=lambda m: f"{m.ranks}-ranks")
def test_every_transport_brings_the_same(site: Callable[..., Site], weights: dict[str, Tensor], way: str, mesh: Mesh) -> None:
    there = site(way, FORMATS[4], mesh)
    for version, now in enumerate((weights, moved(weights, 0.1))):
        assert [getattr(r, "version", r) for r in there.push(now, version)] == [version] * mesh.ranks
        assert_served(there, now)


def test_the_error_does_not_depend_on_who_sends(site: Callable[..., Site], weights: dict[str, Tensor]) -> None:
    found = {mesh: site("local", FORMATS[1], mesh).push(weights, 0)[0] for mesh in MESHES}
    assert len({getattr(report, "relative_rms_error", report) for report in found.values()}) == 1


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
