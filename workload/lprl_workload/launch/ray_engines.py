"""The rollout engines as Ray actors: placement, dealing out requests, replacing lost ones, and the ways weights reach them."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import ray

from lprl_api.derived.residency import EnginePart
from lprl_api.model.formats import WeightFormat
from lprl_api.names import ROLLOUT_SLOT
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.config import ResolvedPaths
from lprl_workload.data import GenerationRequest, SamplingParams
from lprl_workload.episode import Episode, EpisodeRef
from lprl_workload.launch.deal import turns
from lprl_workload.launch.hosts import EngineHost, Place, stored_bucket
from lprl_workload.launch.ray_bundles import Bundles, engine_bundles
from lprl_workload.launch.ray_calls import GENERATION, ActorCalls
from lprl_workload.launch.ray_crew import Crew, call
from lprl_workload.launch.ray_fan import Seat
from lprl_workload.launch.ray_link import ActorLostError, actor_options, get_all, place, read
from lprl_workload.launch.ray_sandboxes import CALLS as SANDBOX_CALLS
from lprl_workload.launch.ray_sandboxes import GROUP as SANDBOXES
from lprl_workload.launch.ray_sandboxes import ActorLink
from lprl_workload.launch.sandboxes import open_clerk
from lprl_workload.launch.stillness import engine_limits, while_starting
from lprl_workload.process.errors import DeadlineError, EngineLostError
from lprl_workload.rollout.aside import Aside
from lprl_workload.rollout.engine import RolloutEngine
from lprl_workload.rollout.pool import CALLS, ROWS, Keeper, Pool, deal, lots
from lprl_workload.sync.transport_broadcast import Meeting, abandon

log = logging.getLogger(__name__)


class EngineActorHost(EngineHost):
    """EngineHost that takes buckets out of Ray's object store."""

    def load_stored(self, stored: tuple[Any, Any]) -> None:
        """Load one bucket; its memory is shared and read-only, the engine copies out of it."""
        self.engine.load_bucket(stored_bucket(stored))


class RayRolloutGroup:
    """RolloutGroup over actors; colocated engines sleep while the trainer works."""

    host: type[EngineActorHost] = EngineActorHost
    """What runs in each engine's process."""

    def __init__(self, run: RunConfig, paths: ResolvedPaths) -> None:
        self._run, self._paths = run, paths
        self.format: WeightFormat = run.rollout_format
        self.generation = 0
        """Changes whenever an engine process is replaced: broadcast groups of before are void."""
        self.handles: list[Any] = [None] * run.ranks.engines
        self._places: list[Place | None] = [None] * run.ranks.engines
        self.crew = Crew("engine", EngineLostError, engine_limits(run), self.handles, self._places)
        self._turns: list[int | None] = [None] * run.ranks.engines
        """Each engine's position among those of its node, kept while it stays there: it decides which devices are the engine's."""
        slots, per_node = run.ranks.slots_per_engine, run.ranks.slots_per_node
        self._bundles = Bundles(ROLLOUT_SLOT, [engine_bundles(number, slots, per_node) for number in range(run.ranks.engines)])
        self._rows = run.rollout.max_concurrency or ROWS
        self._pool = Pool[Any](self._rows)
        self._aside = Aside(self._pool)
        self._sandboxes = open_clerk(run)
        self._start(range(run.ranks.engines))

    @property
    def living(self) -> int:
        """Engines that take work."""
        return self._pool.living

    def admit(self) -> None:
        """Let every engine take work."""
        self._pool.admit(self.handles, self._aside.numbers(self.handles))

    def set_aside(self, count: int) -> int:
        """Take engines out of batches and pushes."""
        return self._aside.set(self.handles, count)

    def take_back(self, work: bool) -> None:
        """Undo `set_aside`."""
        self._aside.end(self.handles, work)

    @property
    def pushed_to(self) -> list[int]:
        """Numbers of the engines that are not aside."""
        return self._aside.others(self.handles)

    def generate(
        self, requests: Sequence[GenerationRequest], params: SamplingParams, keeper: Keeper, aside: bool = False
    ) -> list[EpisodeRef]:
        """Generate on the engines of one kind; the references are objects in the engines' nodes."""
        pool = self._aside.pool if aside else self._pool
        dealt = lots(requests, len(self.handles), self._rows, params.max_response_tokens)
        calls = ActorCalls(dealt, params, engine_limits(self._run), self.crew.who)
        return [episode for found in deal(pool, list(map(len, dealt)), calls, keeper) for episode in found]

    def fetch(self, refs: Sequence[EpisodeRef]) -> list[Episode]:
        """Read episodes; on their own node without a copy."""
        try:
            found: list[Episode] = read([ref.ref for ref in refs], "episodes")
            return found
        except ActorLostError as error:
            number = refs[error.number].engine
            raise EngineLostError(number, f"{self.crew.who(number)}: {error}") from error

    def _ping(self, number: int) -> Any:
        return self.handles[number].moved.options(concurrency_group="health").remote()

    def seats(self, numbers: Sequence[int]) -> dict[int, Seat]:
        """Return how ranks reach engines."""
        return {number: Seat(self.handles[number], getattr(self._places[number], "node", "")) for number in numbers}

    def join(self, meetings: Sequence[Meeting]) -> None:
        """Have every engine that is pushed to join the senders' broadcast groups, in order from rank 1; lets all go when one cannot."""
        numbers = self.pushed_to
        calls = [call(self.handles[number], EngineHost.join_broadcast, meetings, rank) for rank, number in enumerate(numbers, 1)]
        try:
            self.crew.gather(calls, "weight update", numbers, engine_limits(self._run, in_push=True))
        except Exception:
            for meeting in meetings:
                abandon(meeting)
            raise

    def copy_version(self, version: int) -> bool:
        """Copy from an engine that serves it, bucket by bucket through the object store; the driver holds none of it."""
        numbers = self.pushed_to
        versions = {number: found for number, (found, _) in zip(numbers, self.crew.at(numbers, EngineHost.standing), strict=True)}
        peers = [number for number, found in versions.items() if found == version]
        stale = [number for number, found in versions.items() if found < version]
        for number in stale if peers else ():
            self._copy(peers[0], number, version)
        return bool(peers) or not stale

    def _copy(self, peer: int, number: int, version: int) -> None:
        """Copy what one engine serves to another; raises EngineLostError for the one of them that died or stands still."""
        first = more = True
        while more:
            there, held = self.handles[peer].next_held.options(num_returns=2).remote(self._run.weight_sync.bucket_bytes, first)
            taken = call(self.handles[number], EngineHost.take_held, version, held, first)
            more = self.crew.gather([there, taken], "copying weights", [peer, number])[1]
            first = False

    def probe(self, ids: Sequence[int]) -> list[tuple[float, ...]]:
        """Ask every engine."""
        return self.crew.at(self.pushed_to, RolloutEngine.probe, ids)

    def sleep(self, parts: frozenset[EnginePart]) -> None:
        """Have every engine free memory. One that died is noticed by the next push."""
        self._if_living(RolloutEngine.sleep, parts)

    def wake(self, parts: frozenset[EnginePart]) -> None:
        """Undo `sleep`. One that died is noticed by the next push or generation."""
        self._if_living(RolloutEngine.wake, parts)

    def pause(self) -> None:
        """Have every engine stand still."""
        self.crew.at(self.pushed_to, EngineHost.pause)

    def resume(self) -> None:
        """Let every engine go on."""
        self.crew.at(self.pushed_to, RolloutEngine.resume)

    def abort(self) -> None:
        """Tell every engine, and wait for none."""
        for handle in self.handles:
            handle.abort.options(concurrency_group="health").remote()

    def give_up(self, number: int) -> bool:
        """Take no more work to an engine that was found lost; returns False when that was known."""
        return self._pool.give_up(number, self.handles[number])

    def _if_living(self, method: Callable[[Any, frozenset[EnginePart]], Any], parts: frozenset[EnginePart]) -> None:
        try:
            self.crew.everywhere(method, parts)
        except EngineLostError as error:
            log.warning("engine %d did not %s: %s", error.engine, method.__name__, error)

    def replace_lost(self) -> list[int]:
        """Start new actors in the places of dead ones, and of those that were given up."""
        lost = [number for number, handle in enumerate(self.handles) if self._pool.lost(handle) or not self._answers(number)]
        for number in lost:
            ray.kill(self.handles[number])
        self._start(lost)
        return lost

    def _answers(self, number: int) -> bool:
        try:
            get_all([self._ping(number)], f"engine {number}", self._run.rollout.health_check_seconds)
        except (ActorLostError, DeadlineError):
            return False
        return True

    def switch_format(self, fmt: WeightFormat) -> None:
        """Build every engine anew, in the same processes."""
        self.format = fmt
        self._set_up(range(len(self.handles)))

    def close(self) -> None:
        """Stop every engine process, and end what their episodes had."""
        if self._sandboxes is not None:
            self._sandboxes.close()
        for handle in self.handles:
            ray.kill(handle)
        self._bundles.remove()

    def _start(self, numbers: Sequence[int]) -> None:
        self.generation += 1
        groups = {"health": 1, GENERATION: CALLS} | ({SANDBOXES: SANDBOX_CALLS} if self._sandboxes is not None else {})
        actor = ray.remote(concurrency_groups=groups, **actor_options(self._run))(self.host)
        handles, found = place([actor.options(**self._bundles.at(n)).remote for n in numbers], "placing engines", self._bundles.waits)
        before = list(self._places)
        for number, handle, where in zip(numbers, handles, found, strict=True):
            self.handles[number], self._places[number] = handle, where
            if self._sandboxes is not None:
                self._sandboxes.attach(ActorLink(handle))
        self._turns = turns(self._places, before, self._turns)
        self._set_up(numbers)

    def _set_up(self, numbers: Sequence[int]) -> None:
        given = [(self._run, self._paths, self.format, self._device(number)) for number in numbers]
        refs = [call(self.handles[number], EngineHost.set_up, *each) for number, each in zip(numbers, given, strict=True)]
        self.crew.gather(refs, "loading", numbers, while_starting(engine_limits(self._run)))

    def _device(self, number: int) -> str:
        """Return the first device of an engine."""
        if self._run.ranks.accelerator == "cpu":
            return "cpu"
        return f"cuda:{(self._turns[number] or 0) * self._run.ranks.slots_per_engine}"
