"""What runs inside the actor processes: one trainer rank, one engine. No Ray here; ray_cluster.py makes actors of these."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lprl_api.model.formats import WeightFormat
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.checkpoint.hf_folder import write_trained
from lprl_workload.config import RankInfo, ResolvedPaths
from lprl_workload.data import Bucket, GenerationRequest, Metrics, SamplingParams, SyncReport
from lprl_workload.episode import Episode, described
from lprl_workload.launch.backends import make_engine, make_trainer, set_up_process
from lprl_workload.launch.parts import split
from lprl_workload.process.movement import Moved, here
from lprl_workload.quant.select import Selection
from lprl_workload.rollout.completions import complete
from lprl_workload.rollout.engine import RolloutEngine
from lprl_workload.sync.channel import WeightChannel, push_weights
from lprl_workload.sync.channel_broadcast import BroadcastGroup, Meeting, receive, serve_store
from lprl_workload.sync.channel_disk import receive_from
from lprl_workload.sync.cuda_ipc import BucketHandle, open_handle
from lprl_workload.train.actor import TrainActor
from lprl_workload.train.advantage import Moments, Rule
from lprl_workload.train.group import open_store
from lprl_workload.train.rank import TrainWork, Whose, rank_logprobs, rank_moments, rank_train


@dataclass(frozen=True, slots=True)
class Place:
    """Where an actor landed."""

    node: str
    address: str
    pid: int


class TrainHost:
    """One trainer rank in a process of its own."""

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

    def set_correction(self, enabled: bool) -> None:
        """See TrainActor."""
        self.actor.set_correction(enabled)

    def save(self, directory: Path) -> None:
        """See TrainActor."""
        self.actor.save(directory)

    def load(self, directory: Path) -> None:
        """See TrainActor."""
        self.actor.load(directory)

    def export(self, directory: Path) -> None:
        """Write the BF16 folder on rank 0; the others take part in gathering."""
        if self._rank.rank == 0:
            write_trained(directory, self.actor.export_weights(), self._paths.model, self._run.shape)
        else:
            self._gather()

    def push_over(self, channel: WeightChannel | None, fmt: WeightFormat, version: int) -> SyncReport | None:
        """Push over `channel` on rank 0; the others (None) take part in gathering."""
        if channel is None:
            self._gather()
            return None
        return push_weights(channel, self.actor.export_weights(), fmt, Selection(fmt, self._run.shape), version)

    def open_meeting(self, world: int, name: str, timeout_s: float, address: str) -> Meeting:
        """Start the meeting point of a new broadcast group on this host."""
        self._store = serve_store(timeout_s, "0.0.0.0")
        return Meeting(address, int(self._store.port), world, timeout_s, name)

    def join_broadcast(self, meeting: Meeting) -> None:
        """Be rank 0 of the broadcast group; blocks until every engine joined."""
        self._group = BroadcastGroup(meeting, 0, torch.device(self._rank.device), self._store)

    def moved(self) -> Moved:
        """Return what this process got done so far, answered beside whatever it is at."""
        return here.moved

    def leave_broadcast(self) -> None:
        """Close the broadcast group, so that everybody in it fails now instead of at the timeout."""
        if self._group is not None:
            self._group.close()
            self._group = None

    def _gather(self) -> None:
        for item in self.actor.export_weights():
            raise AssertionError(f"rank {self._rank.rank} was given {item.name}: only rank 0 exports")


class EngineHost:
    """One rollout engine in a process of its own."""

    def __init__(self) -> None:
        self._engine: RolloutEngine | None = None
        self._group: BroadcastGroup | None = None

    def set_up(self, run: RunConfig, paths: ResolvedPaths, fmt: WeightFormat, device: str) -> None:
        """Build the engine; it waits for its first push."""
        set_up_process()
        self._device = torch.device(device)
        if self._engine is not None:  # two do not fit one GPU
            before, self._engine = self._engine, None
            before.close()
            del before
        self._engine = make_engine(run, paths, fmt, device)

    @property
    def engine(self) -> RolloutEngine:
        """The engine; `set_up` comes first."""
        assert self._engine is not None
        return self._engine

    def generate(self, requests: Sequence[GenerationRequest], params: SamplingParams) -> list[Any]:
        """Return the driver's view of all episodes, followed by one object per episode, which others get by reference."""
        done = asyncio.run(complete(self.engine, requests, params))
        episodes = [completion.episode(request) for completion, request in zip(done, requests, strict=True)]
        return [[described(episode) for episode in episodes], *episodes]

    def weight_version(self) -> int:
        """See RolloutEngine."""
        return self.engine.weight_version

    def begin_update(self, version: int) -> None:
        """See RolloutEngine."""
        self.engine.begin_update(version)

    def load_bucket(self, bucket: Bucket) -> None:
        """See RolloutEngine."""
        self.engine.load_bucket(bucket)

    def load_handle(self, handle: BucketHandle) -> None:
        """Load a bucket that lies in the trainer's GPU memory."""
        self.engine.load_bucket(open_handle(handle))
        torch.cuda.synchronize()

    def end_update(self, version: int, digest: str) -> None:
        """See RolloutEngine."""
        self.engine.end_update(version, digest)

    def join_broadcast(self, meeting: Meeting, rank: int) -> None:
        """Join the broadcast group; blocks until everybody did."""
        self._group = BroadcastGroup(meeting, rank, self._device)

    def receive_broadcast(self, version: int) -> None:
        """Take one push from the broadcast group."""
        assert self._group is not None
        receive(self._group, self.engine, version)

    def receive_disk(self, root: Path, version: int) -> None:
        """Take one push from a folder."""
        receive_from(root, self.engine, version)

    def sleep(self) -> None:
        """See RolloutEngine."""
        asyncio.run(self.engine.sleep(frozenset({"kv"})))

    def wake(self) -> None:
        """See RolloutEngine."""
        asyncio.run(self.engine.wake(frozenset({"kv"})))

    def moved(self) -> Moved:
        """Return what this process got done so far, answered beside whatever it is at."""
        return here.moved
