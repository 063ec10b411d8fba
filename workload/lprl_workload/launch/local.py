"""Both groups in this process: unit tests, and machines without Ray. One trainer rank, `engines` engines."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from lprl_api.derived.residency import EnginePart, TrainPart
from lprl_api.model.formats import WeightFormat
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.agent.runner import Draw, abort_episodes, single_turns
from lprl_workload.agent.sandbox_clerk import Clerk, DeskLink
from lprl_workload.agent.sandbox_desk import desk
from lprl_workload.checkpoint.hf_folder import write_trained
from lprl_workload.data import GenerationRequest, Metrics, SamplingParams, SyncReport
from lprl_workload.episode import BatchRef, Episode, EpisodeRef, Float32
from lprl_workload.hf.chosen import chosen_of
from lprl_workload.io.parts import FileRecord
from lprl_workload.launch.parts import arrays_of, in_order, split, work_of
from lprl_workload.launch.thread_calls import ThreadCalls
from lprl_workload.rl.groups import Update
from lprl_workload.rollout.aside import Aside
from lprl_workload.rollout.engine import RolloutEngine, mildest_pause
from lprl_workload.rollout.pool import ROWS, Keeper, Pool, deal, lots
from lprl_workload.sync.manifest import ServedAs
from lprl_workload.sync.routes import Target, route
from lprl_workload.sync.session import Session, push
from lprl_workload.sync.transport_local import LocalTransport
from lprl_workload.train.actor import TrainActor
from lprl_workload.train.advantage import Moments, Rule
from lprl_workload.train.mesh import TrainMesh
from lprl_workload.train.mismatch import MismatchSums
from lprl_workload.train.rank import Whose, rank_logprobs, rank_moments, rank_probe, rank_train, share_of
from lprl_workload.train.step_plan import budget_of, schedule

HELD_BYTES = 64 * 1024 * 1024
"""Bucket in which one engine's weights are copied to another."""


def copy_held(peer: RolloutEngine, engine: RolloutEngine, version: int) -> None:
    """Give `engine` what `peer` serves as `version`."""
    engine.begin_update(version)
    try:
        for bucket in peer.held(HELD_BYTES):
            engine.load_held(bucket)
    except Exception as error:
        engine.abort_update(str(error))
        raise
    engine.end_held(version)


class LocalRolloutGroup:
    """RolloutGroup of engines in this process; `make` builds one for a format."""

    def __init__(
        self,
        make: Callable[[WeightFormat], RolloutEngine],
        count: int,
        fmt: WeightFormat,
        rows: int = ROWS,
        draw: Draw = single_turns,
        sandboxes: Clerk | None = None,
    ) -> None:
        """Build `count` engines.

        Args:
            make: builds one.
            count: of them.
            fmt: they serve first.
            rows: responses one of them works at.
            draw: makes episodes of requests.
            sandboxes: serves the desk of this process until the group is closed.

        """
        self._make, self._rows, self._draw, self._sandboxes = make, rows, draw, sandboxes
        if sandboxes is not None:
            sandboxes.attach(DeskLink(desk))
        self.format = fmt
        self.engines = [make(fmt) for _ in range(count)]
        self._pool = Pool[RolloutEngine](rows)
        self._aside = Aside(self._pool)

    @property
    def living(self) -> int:
        """Engines that take work."""
        return self._pool.living

    def admit(self) -> None:
        """Let every engine take work."""
        self._pool.admit(self.engines, self._aside.numbers(self.engines))

    def set_aside(self, count: int) -> int:
        """Take engines out of batches and pushes."""
        return self._aside.set(self.engines, count)

    def take_back(self, work: bool) -> None:
        """Undo `set_aside`."""
        self._aside.end(self.engines, work)

    @property
    def pushed_to(self) -> dict[int, RolloutEngine]:
        """Engines that are not aside, by number."""
        return {number: self.engines[number] for number in self._aside.others(self.engines)}

    def generate(
        self, requests: Sequence[GenerationRequest], params: SamplingParams, keeper: Keeper, aside: bool = False
    ) -> list[EpisodeRef]:
        """Generate on the engines of one kind; the references are the episodes."""
        pool = self._aside.pool if aside else self._pool
        dealt = lots(requests, len(self.engines), self._rows, params.max_response_tokens)
        with ThreadCalls(dealt, params, self._draw) as calls:
            return [episode for found in deal(pool, list(map(len, dealt)), calls, keeper) for episode in found]

    def fetch(self, refs: Sequence[EpisodeRef]) -> list[Episode]:
        """Return the episodes."""
        return [ref.ref for ref in refs]

    def pause(self) -> None:
        """Have every engine stand still."""
        for engine in self.pushed_to.values():
            asyncio.run(engine.pause(mildest_pause(engine.can)))

    def resume(self) -> None:
        """Let every engine go on."""
        for engine in self.pushed_to.values():
            asyncio.run(engine.resume())

    def abort(self) -> None:
        """End what is open."""
        abort_episodes(self._draw)
        for engine in self.engines:
            asyncio.run(engine.abort())

    def give_up(self, number: int) -> bool:
        """Take no more work to an engine that was found lost; returns False when that was known."""
        return self._pool.give_up(number, self.engines[number])

    def sleep(self, parts: frozenset[EnginePart]) -> None:
        """Ask every engine."""
        for engine in self.engines:
            asyncio.run(engine.sleep(parts))

    def wake(self, parts: frozenset[EnginePart]) -> None:
        """Ask every engine."""
        for engine in self.engines:
            asyncio.run(engine.wake(parts))

    def replace_lost(self) -> list[int]:
        """Replace engines that do not answer healthy, and those that were given up."""
        lost = [number for number, engine in enumerate(self.engines) if self._pool.lost(engine) or not engine.healthy()]
        for number in lost:
            self.engines[number].close()
            self.engines[number] = self._make(self.format)
        return lost

    def copy_version(self, version: int) -> bool:
        """Copy from an engine that serves it."""
        engines = self.pushed_to.values()
        peer = next((engine for engine in engines if engine.healthy() and engine.weight_version == version), None)
        for engine in engines:
            if peer is not None and engine.weight_version < version:
                copy_held(peer, engine, version)
        return all(engine.weight_version >= version for engine in engines)

    def probe(self, ids: Sequence[int]) -> list[tuple[float, ...]]:
        """Ask every engine."""
        return [engine.probe(ids) for engine in self.pushed_to.values()]

    def switch_format(self, fmt: WeightFormat) -> None:
        """Build every engine anew."""
        self._close_engines()
        self.format = fmt
        self.engines = [self._make(fmt) for _ in self.engines]

    def close(self) -> None:
        """Close every engine; what waits for a tool is given up, and what episodes had is ended."""
        self._close_engines()
        if self._sandboxes is not None:
            self._sandboxes.close()

    def _close_engines(self) -> None:
        abort_episodes(self._draw)
        for engine in self.engines:
            engine.close()


class LocalTrainGroup:
    """TrainGroup of one rank in this process; `make` builds it with the job's initial weights."""

    def __init__(self, make: Callable[[], TrainActor], rollout: LocalRolloutGroup, run: RunConfig, model: Path) -> None:
        self._make, self._rollout, self._run, self._model = make, rollout, run, model
        self._actor = make()
        self._pushed: int | None = None

    def logprobs(self, batch: BatchRef, of: Whose, temperature: float) -> tuple[tuple[Float32, ...], list[MismatchSums]]:
        """Ask the rank."""
        share = share_of(schedule(batch.lengths, TrainMesh(), budget_of(self._run)), 0, 0)
        episodes = [batch.episodes[n].ref for n in share.numbers]
        sums, rows = rank_logprobs(self._actor, of, share.sizes, temperature, episodes)
        return tuple(in_order(share.numbers, rows)), in_order(share.numbers, sums)

    def moments(self, batch: BatchRef, values: Sequence[float], rule: Rule) -> list[Moments]:
        """Measure here."""
        return rank_moments(values, rule, [e.ref for e in batch.episodes], batch.old or (), batch.reference or ())

    def train(self, update: Update, step: int) -> Metrics:
        """Train on the whole step."""
        self._pushed = None
        share = share_of(update.plan, step, 0)
        work = work_of(update, step, share)
        return rank_train(self._actor, work, *split(arrays_of(update.batch, share.numbers), len(share.numbers), work))

    def set_correction(self, enabled: bool) -> None:
        """Tell the rank."""
        self._actor.set_correction(enabled)

    def push(self, version: int, strong: bool = False) -> SyncReport:
        """Push to the engines that do not serve `version` yet, in this process."""
        self._pushed = version
        stale = {number: engine for number, engine in self._rollout.pushed_to.items() if engine.weight_version < version}
        layouts = [replace(engine.layout(), engine=number) for number, engine in stale.items()]
        fmt, source = self._rollout.format, self._actor.source()
        served_as = ServedAs(fmt, chosen_of(self._model, fmt, self._run.shape))
        routes = route(source.manifest(), layouts, self._run.weight_sync.bucket_bytes, served_as)
        transport = LocalTransport({Target(number): engine for number, engine in stale.items()})
        return push(Session(routes, transport, self._actor.peers()), source, version, strong)

    def probe(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Ask the rank."""
        return rank_probe(self._actor, ids)

    def holds(self, version: int) -> bool:
        """Return whether nothing changed the weights since they were pushed as `version`."""
        return self._pushed == version

    def sleep(self, parts: frozenset[TrainPart]) -> None:
        """Ask the rank."""
        self._actor.sleep(parts)

    def wake(self, parts: frozenset[TrainPart]) -> None:
        """Ask the rank."""
        self._actor.wake(parts)

    def begin_save(self, directory: Path) -> None:
        """Have the rank write its state in a thread."""
        self._actor.begin_save(directory)

    def finish_save(self, wait: bool) -> tuple[FileRecord, ...] | None:
        """Ask the rank."""
        return self._actor.finish_save(wait)

    def export(self, directory: Path) -> tuple[FileRecord, ...]:
        """Write the BF16 folder."""
        return write_trained(directory, self._actor.source(), self._actor.peers(), self._model, self._run.shape)

    def load(self, directory: Path, records: Sequence[FileRecord]) -> None:
        """Load the rank."""
        self._pushed = None
        self._actor.load(directory, records)

    def rebuild(self) -> None:
        """Build the rank anew."""
        self._pushed = None
        self._actor.close()
        self._actor = self._make()

    def close(self) -> None:
        """Close the rank."""
        self._actor.close()
