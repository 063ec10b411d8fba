"""What runs inside the actor processes: one trainer rank, one engine. No Ray here; ray_cluster.py makes actors of these."""

import asyncio
import inspect
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lprl_api.model.formats import WeightFormat
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.agent.runner import abort_episodes, make_draw
from lprl_workload.agent.sandbox_desk import Ask, Told, desk
from lprl_workload.checkpoint.hf_folder import write_trained
from lprl_workload.config import RankInfo, ResolvedPaths
from lprl_workload.data import Bucket, GenerationRequest, Metrics, SamplingParams
from lprl_workload.episode import Episode, described
from lprl_workload.io.parts import FileRecord
from lprl_workload.launch.backends import load_engine, load_trainer, make_engine, make_trainer, set_up_process
from lprl_workload.launch.parts import split
from lprl_workload.process.errors import ServerLostError, WeightMismatchError
from lprl_workload.process.movement import Moved, here
from lprl_workload.rollout.engine import RolloutEngine, mildest_pause
from lprl_workload.sync.buckets import unpack
from lprl_workload.sync.checksum import checksum
from lprl_workload.sync.cuda_ipc import BucketHandle, open_handle
from lprl_workload.sync.routes import EngineLayout, Target
from lprl_workload.sync.transport_broadcast import BroadcastGroup, Meeting, receive, serve_store
from lprl_workload.sync.transport_disk import receive_from
from lprl_workload.train.actor import TrainActor
from lprl_workload.train.advantage import Moments, Rule
from lprl_workload.train.group import open_store
from lprl_workload.train.rank import TrainWork, Whose, rank_logprobs, rank_moments, rank_probe, rank_train


@dataclass(frozen=True, slots=True)
class Place:
    """Where an actor landed."""

    node: str
    address: str
    pid: int
    group: int = 0
    """Of the nodes that a queue keeps together."""


def node_by_node(places: Sequence[Place]) -> list[int]:
    """Return the order in which actors that landed there are numbered: a node's are neighbours, and so are those of a group of nodes."""
    return sorted(range(len(places)), key=lambda n: (places[n].group, places[n].address, places[n].node, n))


class Host:
    """A process of its own around what `holds` names: a rank or an engine."""

    holds: str

    def ask(self, method: str, *given: Any, **named: Any) -> Any:
        """Return what a method of the held gives; an asynchronous one is waited for."""
        found = getattr(getattr(self, self.holds), method)(*given, **named)
        return asyncio.run(found) if inspect.iscoroutine(found) else found

    def moved(self) -> Moved:
        """Return what this process got done so far, answered beside whatever it is at."""
        return here.moved


class TrainHost(Host):
    """One trainer rank in a process of its own."""

    holds = "actor"

    def __init__(self) -> None:
        self._actor: TrainActor | None = None
        self._group: BroadcastGroup | None = None
        self._store: Any = None
        self._rendezvous: Any = None

    def open_rendezvous(self) -> int:
        """Open the ranks' meeting point and return its port. It stays open: a port that is only looked up may be taken meanwhile."""
        self._rendezvous = open_store("0.0.0.0", 0, serve=True)
        return int(self._rendezvous.port)

    def set_up(self, run: RunConfig, paths: ResolvedPaths, rank: RankInfo) -> None:
        """Join the ranks and load the model."""
        set_up_process()
        load_trainer(run)
        self._run, self._paths, self._rank = run, paths, replace(rank, store=self._rendezvous)
        self._actor = make_trainer(run, paths, self._rank)

    @property
    def actor(self) -> TrainActor:
        """The rank; `set_up` comes first."""
        assert self._actor is not None
        return self._actor

    def logprobs(self, of: Whose, sizes: Sequence[int], temperature: float, *episodes: Episode) -> Any:
        """Return the mismatch sums, followed by one object per episode: its log-probabilities, which others get by reference."""
        sums, rows = rank_logprobs(self.actor, of, sizes, temperature, episodes)
        return [sums, *rows] if rows else sums

    def moments(self, values: Sequence[float], rule: Rule, *arrays: Any) -> list[Moments]:
        """Return the moments of the advantages of episodes, given with both kinds of log-probabilities."""
        count = len(values)
        return rank_moments(values, rule, arrays[:count], arrays[count : 2 * count], arrays[2 * count :])

    def train(self, work: TrainWork, *arrays: Any) -> Metrics:
        """Do this rank's part of an optimizer step on `arrays_of` its episodes."""
        return rank_train(self.actor, work, *split(arrays, len(work.values), work))

    def finish_save(self) -> tuple[FileRecord, ...]:
        """See TrainActor."""
        found = self.actor.finish_save(wait=True)
        assert found is not None
        return found

    def export(self, directory: Path) -> tuple[FileRecord, ...]:
        """Write the BF16 folder, on rank 0 with the others' help; returns what this rank wrote."""
        return write_trained(directory, self.actor.source(), self.actor.peers(), self._paths.model, self._run.shape)

    def probe(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Score the probe; on every rank."""
        return rank_probe(self.actor, ids)

    def open_meeting(self, world: int, name: str, timeout_s: float, address: str) -> Meeting:
        """Start the meeting point of a new broadcast group on this host; the one there was is closed."""
        self.leave_broadcast()
        self._store = serve_store(timeout_s, "0.0.0.0")
        return Meeting(address, int(self._store.port), world, timeout_s, name)

    def join_broadcast(self, meeting: Meeting) -> None:
        """Be rank 0 of the broadcast group; blocks until every engine joined, or the meeting is abandoned."""
        self._group = BroadcastGroup(meeting, 0, torch.device(self._rank.device), self._store)

    def leave_broadcast(self) -> None:
        """Close the broadcast group, so that everybody in it fails now instead of at the timeout."""
        group, self._group, self._store = self._group, None, None
        if group is not None:
            group.close()


def sums_of(bucket: Bucket, device: torch.device) -> list[int]:
    """Return the checksum of every tensor of a bucket, computed on `device`."""
    found = [checksum(item.tensor.to(device)) for item in unpack(bucket)]
    return [int(value) for value in torch.stack(found).tolist()] if found else []


def stored_bucket(stored: tuple[Any, Any]) -> Bucket:
    """Return a bucket as it comes out of the object store: its memory is shared and read-only, engines copy out of it."""
    entries, array = stored
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return Bucket(tuple(entries), torch.from_numpy(array))


class EngineHost(Host):
    """One rollout engine in a process of its own."""

    holds = "engine"

    def __init__(self) -> None:
        self._engine: RolloutEngine | None = None
        self._groups: list[BroadcastGroup] = []
        self._held: Iterator[Bucket] | None = None

    def moved(self) -> Moved:
        """See Host. Raises ServerLostError where the engine will never serve again: who looks for lost ones finds it."""
        if self._engine is not None and (error := self._engine.lost()) is not None:
            raise error
        return super().moved()

    def set_up(self, run: RunConfig, paths: ResolvedPaths, fmt: WeightFormat, device: str) -> None:
        """Build the engine; it waits for its first push."""
        set_up_process()
        self._device = torch.device(device)
        if self._engine is not None:  # two do not fit one GPU
            before, self._engine = self._engine, None
            before.close()
            del before
        else:
            load_engine(run)
        self._engine, self._draw = make_engine(run, paths, fmt, device), make_draw(run, paths)

    @property
    def engine(self) -> RolloutEngine:
        """The engine; `set_up` comes first."""
        assert self._engine is not None
        return self._engine

    def generate(self, requests: Sequence[GenerationRequest], params: SamplingParams) -> list[Any]:
        """Return the driver's view of all episodes, followed by one object per episode, which others get by reference.

        In place of the view stands the error of a server that was lost: raised, it would be a traceback for every object.
        """
        try:
            episodes = asyncio.run(self._draw(self.engine, requests, params))
        except ServerLostError as error:
            return [error, *[None] * len(requests)]
        return [[described(episode) for episode in episodes], *episodes]

    def abort(self) -> None:
        """End every episode under way with what it has drawn."""
        abort_episodes(self._draw)
        asyncio.run(self.engine.abort())

    def sandbox_asks(self, had: int) -> tuple[int, list[Ask]]:
        """Return what episodes of this process ask the driver for; waits a while for it. See Desk.asks."""
        return desk.asks(had)

    def sandbox_told(self, answers: Sequence[Told]) -> None:
        """Take the driver's answers."""
        desk.told(answers)

    def pause(self) -> None:
        """Stand still, requests kept; new ones wait."""
        asyncio.run(self.engine.pause(mildest_pause(self.engine.can)))

    def standing(self) -> tuple[int, EngineLayout]:
        """Return the version served and what the engine can take."""
        return self.engine.weight_version, self.engine.layout()

    def load_handle(self, handle: BucketHandle) -> None:
        """Load a bucket that lies in the trainer's GPU memory."""
        self.engine.load_bucket(open_handle(handle))
        torch.cuda.synchronize()

    def join_broadcast(self, meetings: Sequence[Meeting], rank: int) -> None:
        """Join the broadcast group of every sender; blocks until everybody did, or a meeting is abandoned."""
        self.leave_broadcast()
        for meeting in meetings:
            self._groups.append(BroadcastGroup(meeting, rank, self._device))

    def leave_broadcast(self) -> None:
        """Close the broadcast groups there are."""
        while self._groups:
            self._groups.pop().close()

    def receive_broadcast(self, version: int, strong: bool, target: Target) -> None:
        """Take one push from the broadcast groups."""
        receive(self._groups, self.engine, version, strong, target)

    def receive_disk(self, root: Path, version: int, target: Target) -> None:
        """Take one push from a folder."""
        receive_from(root, self.engine, version, target)

    def next_held(self, bucket_bytes: int, first: bool) -> tuple[bool, tuple[Any, Any, list[int]] | None]:
        """Return whether there is another bucket of what the engine serves, and it: (entries, bytes, checksums). `first` starts anew."""
        if first or self._held is None:
            self._held = self.engine.held(bucket_bytes)
        bucket = next(self._held, None)
        if bucket is None:
            self._held = None
            return False, None
        return True, (bucket.entries, bucket.data.cpu().numpy(), sums_of(bucket, self._device))

    def take_held(self, version: int, held: tuple[Any, Any, list[int]] | None, first: bool) -> bool:
        """Take what `next_held` of another engine returned; returns whether more is to come. Raises WeightMismatchError."""
        if first:
            self.engine.begin_update(version)
        if held is None:
            self.engine.end_held(version)
            return False
        bucket = stored_bucket(held[:2])
        if sums_of(bucket, self._device) != held[2]:
            self.engine.abort_update("a bucket of another engine's weights arrived damaged")
            raise WeightMismatchError(f"weights of version {version}: a bucket of another engine's weights arrived damaged")
        self.engine.load_held(bucket)
        return True
