"""A weight push between processes: trainer ranks and engine ranks of which any may die or fail at any bucket, forked in milliseconds.

The test's process is what the driver is in a run: it starts them, has the engines receive when the first sender says so, sees who died
and says so to the sender that asks, and replaces the dead. A push that hangs is an AssertionError.
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from tests import forking
from tests.contract.push_plan import Fault, Plan
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, ProcessGroupGloo, TCPStore

from lprl_fixtures.pushes import Keeper, StandInSource, converted, mesh_manifest
from lprl_workload.data import Bucket
from lprl_workload.process.errors import EngineLostError, WeightMismatchError
from lprl_workload.sync.buckets import as_bytes
from lprl_workload.sync.peers import GroupPeers
from lprl_workload.sync.routes import EngineLayout, Target, route
from lprl_workload.sync.session import Session, Transport, push
from lprl_workload.sync.transport_broadcast import BroadcastGroup, BroadcastTransport, Confirm, Meeting, receive, serve_store
from lprl_workload.sync.transport_disk import DiskTransport, receive_from

TIMEOUT_S = 60.0
"""Of every meeting and message. Nothing here takes it: who waits for a process that died hears of it at once."""
HANGS_S = TIMEOUT_S + 10
LAYERS, EXPERTS = 2, 4
BUCKET_BYTES = 1 << 16
LAYOUTS = [EngineLayout(0), EngineLayout(1, 2, experts=EXPERTS)]
TARGETS = [Target(0), Target(1, 0), Target(1, 1)]
CPU = torch.device("cpu")


def digest(tensors: Mapping[str, Tensor] | None) -> str:
    """Return a hash of names and bytes; empty of an engine that serves nothing."""
    if tensors is None:
        return ""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode() + as_bytes(tensor).numpy().tobytes())
    return found.hexdigest()


def engine_main(number: int, plan: Plan, conn: Connection) -> None:
    """One engine rank."""
    torch.set_num_threads(1)
    keeper, groups, target = Keeper(), list[BroadcastGroup](), TARGETS[number]
    while True:
        match conn.recv():
            case ["meet", meetings]:
                for group in groups:
                    group.close()
                groups = [BroadcastGroup(meeting, 1 + number, CPU) for meeting in meetings]
                conn.send(("met",))
            case ["receive", version, strong, fault]:
                loads = [0]

                def counted(bucket: Bucket, fault: Fault | None = fault, loads: list[int] = loads) -> Bucket:
                    loads[0] += 1
                    if fault is not None and loads[0] == fault.at:
                        fault.now()
                    return bucket

                keeper.fault, error = counted, ""
                try:
                    if plan.way == "disk":
                        receive_from(plan.root, keeper, version, target)
                    else:
                        receive(groups, keeper, version, strong, target)
                except Exception as found:
                    error = f"{type(found).__name__}: {found}"
                conn.send(("received", error, digest(keeper.served), loads[0]))


class Rank:
    """One trainer rank."""

    def __init__(self, rank: int, plan: Plan, conn: Connection) -> None:
        torch.set_num_threads(1)
        self.rank, self.plan, self.conn = rank, plan, conn
        self.group: BroadcastGroup | None = None
        self.peers: GroupPeers
        self.sent = 0
        while True:
            match conn.recv():
                case ["ranks", port, name]:
                    store = TCPStore("127.0.0.1", port, None, False, timedelta(seconds=TIMEOUT_S), wait_for_workers=False)
                    world, limit = plan.mesh.ranks, timedelta(seconds=TIMEOUT_S)
                    self.peers = GroupPeers(ProcessGroupGloo(PrefixStore(name, store), rank, world, limit), rank, world)
                    conn.send(("met",))
                case ["meet", meetings]:
                    self.group = BroadcastGroup(meetings[rank], 0, CPU)
                    conn.send(("met",))
                case ["push", version, strong, fault]:
                    conn.send(("pushed", self.push(version, strong, fault), self.sent))

    def push(self, version: int, strong: bool, fault: Fault | None) -> str:
        """Push; returns the error's type, empty for none."""
        plan, weights = self.plan, self.plan.weights(version)
        manifest = mesh_manifest(weights, plan.mesh, LAYERS, EXPERTS)
        routes = route(manifest, LAYOUTS, BUCKET_BYTES, plan.served_as)
        transport: Transport
        if plan.way == "disk":
            transport = DiskTransport(plan.root, self.rank, routes, version, lambda v: partial(self.announce(v, True), False))
        else:
            assert self.group is not None
            transport = BroadcastTransport(self.group, self.announce)
        send, self.sent = transport.send, 0

        def counted(bucket: Bucket, to: Any) -> None:
            self.sent += 1
            if fault is not None and self.sent == fault.at:
                fault.now()
            send(bucket, to)

        transport.send = counted  # type: ignore[method-assign]
        try:
            push(Session(routes, transport, self.peers), StandInSource(weights, manifest, self.rank), version, strong)
        except Exception as error:
            return type(error).__name__
        return ""

    def announce(self, version: int, strong: bool) -> Confirm:
        """Have the driver call the engines; what it returns asks how that ended."""
        self.conn.send(("announce", version, strong))

        def confirm(broken: bool) -> None:
            self.conn.send(("confirm",))
            lost, error = self.conn.recv()
            if lost is not None:
                raise EngineLostError(lost, "killed")
            if error:
                raise WeightMismatchError(error)

        return confirm


@dataclass
class Outcome:
    """How a push ended, by `rank N` and `engine N`."""

    errors: dict[str, str] = field(default_factory=dict)
    """`dead`, or the error's type and words; empty where it went well."""
    served: dict[str, str] = field(default_factory=dict)
    """Digests of what engines serve now; of those that were not called, not there."""
    buckets: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


class Driver:
    """The test's end. `push` may be called again after whatever happened."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.meetings = plan, 0
        self.conns: dict[str, Connection] = {}
        self.processes: dict[str, Any] = {}
        self.broken = True
        self.context = forking.context(forking.RANKS)
        self._stores: list[Any] = []

    @property
    def everybody(self) -> list[str]:
        return [f"rank {n}" for n in range(self.plan.mesh.ranks)] + [f"engine {n}" for n in range(len(TARGETS))]

    def push(self, version: int, strong: bool = False, fault: Fault | None = None) -> Outcome:
        """Push `version`; returns when everybody is out, or dead."""
        self._ready()
        began, found = time.monotonic(), Outcome()
        ranks = [who for who in self.everybody if who.startswith("rank")]
        for who in ranks:
            self.conns[who].send(["push", version, strong, fault if fault and fault.who == who else None])
        called: set[str] = set()
        asking = False
        while waiting := [who for who in (*ranks, *called) if who not in found.errors]:
            ready = wait([self.conns[who] for who in waiting], timeout=1.0)
            assert time.monotonic() - began < HANGS_S, f"{waiting} did not end, {fault}"
            for who in [who for who in waiting if self.conns[who] in ready]:
                match self._heard(who):
                    case ["announce", v, s]:
                        called = {who for who in self.everybody if who.startswith("engine")}
                        for engine in called:
                            self.conns[engine].send(["receive", v, s, fault if fault and fault.who == engine else None])
                    case ["confirm"]:
                        asking = True
                    case ["received", error, served, loads]:
                        found.errors[who], found.served[who], found.buckets[who] = error, served, loads
                    case ["pushed", error, sent]:
                        found.errors[who], found.buckets[who] = error, sent
                    case ["dead"]:
                        found.errors[who] = "dead"
            asking = asking and not self._answered(found, called)
        self.broken = any(found.errors.values())
        found.seconds = time.monotonic() - began
        return found

    def _answered(self, found: Outcome, called: set[str]) -> bool:
        """Tell the first sender how its engines' calls ended, as soon as that is known."""
        dead = next((who for who in called if found.errors.get(who) == "dead"), None)
        if dead is None and not called <= found.errors.keys():
            return False
        if found.errors.get("rank 0") != "dead":
            error = next((found.errors[who] for who in sorted(called) if found.errors.get(who)), "")
            self.conns["rank 0"].send((None if dead is None else int(dead.split()[1]), error))
        return True

    def _heard(self, who: str) -> Any:
        try:
            return list(self.conns[who].recv())
        except (EOFError, ConnectionResetError):
            self.processes.pop(who).join()
            return ["dead"]

    def _ready(self) -> None:
        """Replace the dead; whoever lost a partner meets again."""
        if not self.broken:
            return
        dead = [who for who in self.everybody if who not in self.processes]
        for who in dead:
            mine, theirs = self.context.Pipe()
            kind, number = who.split()
            target: Any = Rank if kind == "rank" else engine_main
            self.processes[who] = self.context.Process(target=target, args=(int(number), self.plan, theirs), daemon=True)
            self.processes[who].start()
            theirs.close()
            self.conns[who] = mine
        self.meetings += 1
        ranks = [who for who in self.everybody if who.startswith("rank")]
        if any(who in dead for who in ranks):
            store = serve_store(TIMEOUT_S, "127.0.0.1")
            self._stores.append(store)
            self._tell(ranks, ["ranks", store.port, f"ranks-{self.meetings}"])
        if self.plan.way == "broadcast":
            stores = [serve_store(TIMEOUT_S, "127.0.0.1") for _ in ranks]
            self._stores += stores
            world = 1 + len(TARGETS)
            meetings = [Meeting("127.0.0.1", s.port, world, TIMEOUT_S, f"m{self.meetings}-{n}") for n, s in enumerate(stores)]
            self._tell(self.everybody, ["meet", meetings])

    def _tell(self, who: list[str], what: list[Any]) -> None:
        for each in who:
            self.conns[each].send(what)
        for each in who:
            assert self.conns[each].poll(HANGS_S) and self.conns[each].recv() == ("met",), f"{each}: {what[0]}"

    def close(self) -> None:
        """End the processes."""
        for process in self.processes.values():
            process.kill()
            process.join()


def expected(plan: Plan, version: int) -> dict[str, str]:
    """Return the digests of the parts of the offline conversion that the engines take."""
    want = converted(plan.weights(version), plan.served_as)
    layouts = {layout.engine: layout for layout in LAYOUTS}
    found = {}
    for number, target in enumerate(TARGETS):
        parts = {name: layouts[target.engine].part(target.rank, name, tuple(tensor.shape)) for name, tensor in want.items()}
        found[f"engine {number}"] = digest({name: want[name] for name, part in parts.items() if part is not None})
    return found
