"""The trainer ranks as Ray actors, and how they reach the engines (launch/ray_*.py are the only importers of ray).

Placement is by the custom resources the operator gives the worker nodes, one unit a slot: lprl_trainer and lprl_rollout, taken as
placement groups (ray_bundles.py). Under colocated placement a node offers both, so a rank and an engine share a slot and work in turn;
under split placement a node offers one of them. The head offers neither. Actors never restart by themselves: the groups replace them.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import ray

from lprl_api.derived.residency import TrainPart
from lprl_api.errors import UserError
from lprl_api.model.formats import WeightFormat
from lprl_api.names import TRAINER_SLOT
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.config import RankInfo, ResolvedPaths
from lprl_workload.data import Metrics, SyncReport
from lprl_workload.episode import BatchRef
from lprl_workload.hf.chosen import chosen_of
from lprl_workload.io.parts import FileRecord
from lprl_workload.launch.deal import spans
from lprl_workload.launch.hosts import EngineHost, Place, TrainHost, node_by_node
from lprl_workload.launch.parts import arrays_of, in_order, work_of
from lprl_workload.launch.ray_bundles import Bundles, Wanted
from lprl_workload.launch.ray_crew import Crew, call
from lprl_workload.launch.ray_engines import RayRolloutGroup
from lprl_workload.launch.ray_fan import Link, ObjectStoreTransport, Seat, broadcast_announcer, disk_announcer
from lprl_workload.launch.ray_link import actor_options, place
from lprl_workload.launch.stillness import engine_limits, message_seconds, rank_limits, while_starting
from lprl_workload.process.errors import TrainerLostError
from lprl_workload.rl.groups import Update
from lprl_workload.sync.manifest import ServedAs
from lprl_workload.sync.peers import AbandonedError
from lprl_workload.sync.routes import EngineLayout, Routes, route
from lprl_workload.sync.session import Session, Transport, push
from lprl_workload.sync.transport_broadcast import BroadcastTransport, Meeting
from lprl_workload.sync.transport_disk import DiskTransport
from lprl_workload.train.actor import TrainActor
from lprl_workload.train.advantage import Moments, Rule
from lprl_workload.train.mesh import mesh_of
from lprl_workload.train.mismatch import MismatchSums
from lprl_workload.train.rank import Whose, share_of
from lprl_workload.train.step_plan import budget_of, schedule

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Order:
    """One push, as every rank is told of it."""

    version: int
    strong: bool
    way: str
    """store, broadcast or disk."""
    fmt: WeightFormat
    seats: Mapping[int, Seat]
    layouts: tuple[EngineLayout, ...]
    senders: tuple[int, ...]


class TrainActorHost(TrainHost):
    """TrainHost that knows the ways to engine actors."""

    def push(self, order: Order, node: str) -> SyncReport | None:
        """Do this rank's part of a push; `node`: where it runs. None when it left with another rank, which says why."""
        size = self._run.weight_sync.bucket_bytes
        served_as = ServedAs(order.fmt, chosen_of(self._paths.model, order.fmt, self._run.shape))
        source = self.actor.source()
        routes = route(source.manifest(), order.layouts, size, served_as, order.senders)
        session = Session(routes, self._transport(order, routes, node), self.actor.peers())
        try:
            return push(session, source, order.version, order.strong)
        except AbandonedError:
            return None

    def _transport(self, order: Order, routes: Routes, node: str) -> Transport:
        limits = engine_limits(self._run, in_push=True)
        match order.way:
            case "broadcast" if self._rank.rank in order.senders:
                assert self._group is not None
                return BroadcastTransport(self._group, broadcast_announcer(order.seats, limits))
            case "disk":
                root = self._paths.run / "sync"
                return DiskTransport(root, self._rank.rank, routes, order.version, disk_announcer(order.seats, root, limits))
            case _:
                return ObjectStoreTransport(order.seats, node, Link(order.seats, limits))


class RayTrainGroup:
    """TrainGroup over one actor per rank. Ranks are numbered node by node, so that a node's ranks are neighbours."""

    host: type[TrainActorHost] = TrainActorHost
    """What runs in each rank's process."""
    rollout: RayRolloutGroup
    """The engines weights are pushed to; set before the first push."""

    def __init__(self, run: RunConfig, paths: ResolvedPaths) -> None:
        self._run, self._paths = run, paths
        self._handles: list[Any] = []
        self._places: list[Place] = []
        self._crew = Crew("rank", lambda number, words: TrainerLostError(words), rank_limits(run), self._handles, self._places, "trainer: ")
        self._joined: tuple[int, tuple[int, ...], Any] | None = None
        self._meetings = 0
        self._pushed: int | None = None
        self._saving: list[Any] = []
        self._bundles = Bundles(TRAINER_SLOT, [Wanted("trainer ranks", (1,) * run.ranks.trainer_ranks)])
        self._start()

    def logprobs(self, batch: BatchRef, of: Whose, temperature: float) -> tuple[tuple[Any, ...], list[MismatchSums]]:
        """Ask every rank for its part; the rows stay in the object stores of their nodes, owned by the driver."""
        plan = schedule(batch.lengths, mesh_of(self._run), budget_of(self._run))
        answering = [plan.mesh.answering_rank(data) for data in range(plan.mesh.dp)]
        calls, shares = [], [share_of(plan, 0, rank) for rank in range(len(self._handles))]
        for handle, share in zip(self._handles, shares, strict=True):
            ask = handle.logprobs.options(num_returns=1 + len(share.numbers))
            found = ask.remote(of, share.sizes, temperature, *arrays_of(BatchRef(batch.episodes), share.numbers))
            calls.append(found if share.numbers else [found])
        sums = self._crew.gather([refs[0] for refs in calls], f"{of} logprobs")
        numbers = [n for rank in answering for n in shares[rank].numbers]
        rows = in_order(numbers, [ref for rank in answering for ref in calls[rank][1:]])
        return tuple(rows), in_order(numbers, [found for rank in answering for found in sums[rank]])

    def moments(self, batch: BatchRef, values: Sequence[float], rule: Rule) -> list[Moments]:
        """Ask the ranks, in runs: this needs no model."""
        ranges = spans(len(batch), len(self._handles))
        calls = [
            call(h, TrainHost.moments, values[a:b], rule, *arrays_of(batch, range(a, b)))
            for h, (a, b) in zip(self._handles, ranges, strict=True)
        ]
        return [found for part in self._crew.gather(calls, "moments") for found in part]

    def train(self, update: Update, step: int) -> Metrics:
        """Deal the step; the metrics are those of the first data index' answering rank, the same on every one."""
        self._pushed = None
        calls = []
        for rank, handle in enumerate(self._handles):
            share = share_of(update.plan, step, rank)
            calls.append(call(handle, TrainHost.train, work_of(update, step, share), *arrays_of(update.batch, share.numbers)))
        found: list[Metrics] = self._crew.gather(calls, "train")
        return found[update.plan.mesh.answering_rank(0)]

    def set_correction(self, enabled: bool) -> None:
        """Tell every rank."""
        self._crew.everywhere(TrainActor.set_correction, enabled)

    def push(self, version: int, strong: bool = False) -> SyncReport:
        """Push from every rank to the engines that do not serve `version` yet."""
        self._pushed = version
        numbers = self.rollout.pushed_to
        standing = dict(zip(numbers, self.rollout.crew.at(numbers, EngineHost.standing), strict=True))
        stale = [number for number, (found, _) in standing.items() if found < version]
        way = self._way(len(stale))
        seats = self.rollout.seats(stale)
        layouts = tuple(replace(standing[number][1], engine=number, node=seats[number].node) for number in stale)
        senders = self._senders() if way == "broadcast" else tuple(range(len(self._handles)))
        if way == "broadcast":
            self._meet(senders)
        # Disks are slow anyway, and what lies on one may be read much later.
        order = Order(version, strong or way == "disk", way, self.rollout.format, seats, layouts, senders)
        calls = [call(handle, TrainActorHost.push, order, place.node) for handle, place in zip(self._handles, self._places, strict=True)]
        try:
            reports: list[SyncReport | None] = self._crew.gather(calls, "push")
        except Exception:
            self._joined = None
            raise
        return next(report for report in reports if report is not None)

    def probe(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Have every rank score the probe, which is one pass together; all find the same."""
        return self._crew.everywhere(TrainHost.probe, ids)[0]

    def holds(self, version: int) -> bool:
        """Return whether nothing changed the weights since they were pushed as `version`."""
        return self._pushed == version

    def _senders(self) -> tuple[int, ...]:
        """Return one rank a node: each broadcasts over its node's network, and every engine is in a group with each."""
        first = {place.node: number for number, place in reversed(list(enumerate(self._places)))}
        return tuple(sorted(first.values()))

    def sleep(self, parts: frozenset[TrainPart]) -> None:
        """Have every rank free memory."""
        self._crew.everywhere(TrainActor.sleep, parts)

    def wake(self, parts: frozenset[TrainPart]) -> None:
        """Have every rank take it back."""
        self._crew.everywhere(TrainActor.wake, parts)

    def begin_save(self, directory: Path) -> None:
        """Have every rank copy its part; they say in a thread of their own when it is written."""
        self._crew.everywhere(TrainActor.begin_save, directory)
        self._saving = [handle.finish_save.options(concurrency_group="saving").remote() for handle in self._handles]

    def finish_save(self, wait: bool) -> tuple[FileRecord, ...] | None:
        """Look at what the ranks say, or wait for it."""
        done, _ = ray.wait(self._saving, num_returns=len(self._saving), timeout=0)
        if not wait and len(done) < len(self._saving):
            return None
        return tuple(record for part in self._crew.gather(self._saving, "save") for record in part)

    def export(self, directory: Path) -> tuple[FileRecord, ...]:
        """Have the ranks write the BF16 folder together."""
        return tuple(record for part in self._crew.everywhere(TrainHost.export, directory) for record in part)

    def load(self, directory: Path, records: Sequence[FileRecord]) -> None:
        """Have every rank read its part; the records travel once."""
        self._pushed = None
        self._crew.everywhere(TrainActor.load, directory, ray.put(tuple(records)))

    def rebuild(self) -> None:
        """Kill what is left of the ranks and start all of them anew."""
        self._kill()
        self._start()

    def close(self) -> None:
        """Stop every rank's process."""
        self._kill()
        self._bundles.remove()

    def _kill(self) -> None:
        for handle in self._handles:
            ray.kill(handle)
        self._handles.clear()

    def _start(self) -> None:
        """Place the ranks, number them node by node, load the model. Raises DeadlineError when there is no room in time."""
        self._joined = self._pushed = None
        groups = {"health": 1, "saving": 1}
        actor = ray.remote(concurrency_groups=groups, **actor_options(self._run))(self.host)
        make = [actor.options(**self._bundles.at(0, rank)).remote for rank in range(self._run.ranks.trainer_ranks)]
        handles, found = place(make, "placing trainer ranks", self._bundles.waits)
        order = node_by_node(found)
        self._handles[:], self._places[:] = [handles[n] for n in order], [found[n] for n in order]
        port = int(self._crew.gather([call(self._handles[0], TrainHost.open_rendezvous)], "open rendezvous")[0])
        given = [(self._run, self._paths, self._rank(number, port)) for number in range(len(order))]
        calls = [call(handle, TrainHost.set_up, *each) for handle, each in zip(self._handles, given, strict=True)]
        self._crew.gather(calls, "loading trainer ranks", limits=while_starting(rank_limits(self._run)))

    def _rank(self, number: int, port: int) -> RankInfo:
        local = sum(place.node == self._places[number].node for place in self._places[:number])
        device = "cpu" if self._run.ranks.accelerator == "cpu" else f"cuda:{local}"
        return RankInfo(number, len(self._handles), device, self._places[0].address, port)

    def _way(self, stale: int) -> str:
        """Return how to push: a few replaced engines always get theirs through the object store."""
        asked = self._run.weight_sync.transport
        if asked == "auto":
            asked = "broadcast" if self._run.ranks.placement == "split" else "local"
        if asked == "broadcast" and (self._run.ranks.placement == "colocated" and self._run.ranks.accelerator != "cpu"):
            raise UserError(
                "spec.weightSync.transport: broadcast between colocated processes would put two NCCL ranks on one GPU",
                "use auto, local, cuda-ipc or disk",
            )
        return "store" if asked == "broadcast" and stale < len(self.rollout.pushed_to) else asked

    def _meet(self, senders: tuple[int, ...]) -> None:
        """Make broadcast groups with the engines there are now, one a sender, unless there are."""
        key = (self.rollout.generation, tuple(self.rollout.pushed_to), self._handles[0])
        if self._joined == key:
            return
        self._meetings += 1
        world = 1 + len(self.rollout.pushed_to)
        opened = []
        for sender in senders:
            name = f"push-{os.getpid()}-{self._meetings}-{sender}"
            told = (world, name, message_seconds(self._run), self._places[sender].address)
            opened.append(call(self._handles[sender], TrainHost.open_meeting, *told))
        meetings: list[Meeting] = self._crew.gather(opened, "open broadcast groups", senders)
        mine = [call(self._handles[sender], TrainHost.join_broadcast, meeting) for sender, meeting in zip(senders, meetings, strict=True)]
        self.rollout.join(meetings)
        self._crew.gather(mine, "join broadcast groups", senders)
        self._joined = key
