"""A trainer of some mesh and two engines of three ranks between which weights are pushed, in threads over real gloo groups."""

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.model.hf_config import shape_from_config
from lprl_api.spec.precision import Scope
from lprl_fixtures.pushes import Keeper, Mesh, Ranks, StandInSource, converted, mesh_manifest
from lprl_workload.data import SyncReport
from lprl_workload.hf.folder import read_folder
from lprl_workload.hf.slots import per_expert
from lprl_workload.quant.select import Selection
from lprl_workload.sync.buckets import as_bytes
from lprl_workload.sync.manifest import ServedAs
from lprl_workload.sync.peers import Peers
from lprl_workload.sync.routes import EngineLayout, Routes, Target, route
from lprl_workload.sync.session import Session, Transport, push
from lprl_workload.sync.transport_broadcast import BroadcastGroup, BroadcastTransport, Confirm, Meeting, receive, serve_store
from lprl_workload.sync.transport_disk import DiskTransport, receive_from
from lprl_workload.sync.transport_local import LocalTransport

BUCKET_BYTES = 1 << 15
LAYERS, EXPERTS = 2, 4
FORMATS: list[WeightFormat] = [Bf16(), Fp8Block(), Fp8Channel(), Fp8Tensor(), Int4Group(group_size=32, scope=Scope.ALL_LINEAR)]
WIDE: list[WeightFormat] = [
    Int4Group(group_size=64, scope=Scope.ALL_LINEAR),
    Int4Group(group_size=64),
    Int4Group(group_size=128, scope=Scope.ALL_LINEAR, exclude_modules=("*.down_proj",)),
    Fp8Block(scale_format="ue8m0"),
]
"""Formats for which the small model is too narrow, or that differ in one setting only: on one mesh."""
MESHES = [Mesh(), Mesh(tp=2), Mesh(tp=2, pp=2), Mesh(tp=2, ep=2, pp=2)]
WHOLE = EngineLayout(0)
TWO_RANKS = EngineLayout(1, 2, cuts=(("*o_proj.weight", 1), ("*norm.weight", 0)), experts=EXPERTS)
"""Experts dealt out, two kinds of tensors cut, the rest on both ranks."""


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
            return DiskTransport(self.root, rank, routes, version, self._announced)
        if self.way == "broadcast" and rank in self.senders:
            return BroadcastTransport(
                self._ends[-1 - rank][0], lambda v, strong: self._called(lambda t, k: receive(self._ends[self._number(t)], k, v, strong, t))
            )
        return LocalTransport(self.keepers)

    def _announced(self, version: int) -> Callable[[], None]:
        return partial(self._called(lambda t, k: receive_from(self.root, k, version, t)), False)

    def _number(self, target: Target) -> int:
        return 1 + list(self.keepers).index(target)

    def _called(self, call: Callable[[Target, Keeper], None]) -> Confirm:
        calls: list[Future[None]] = [self.pool.submit(call, target, keeper) for target, keeper in self.keepers.items()]

        def confirm(broken: bool = False) -> None:
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


def weights_of(folder: Path) -> dict[str, Tensor]:
    return dict(sorted(item for stored in read_folder(folder) for item in per_expert(*stored)))
