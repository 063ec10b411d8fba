"""What the driver holds while 2,048 episodes of 16k tokens go through collect, score, schedule and the hand-over to the trainer.

    python benchmarks/handover.py [--episodes 2048] [--tokens 16384]

A real local Ray (or the one at RAY_ADDRESS) with two engines and two trainer ranks, each a process of its own that runs a stand-in:
the engine draws tokens from a generator, the trainer looks at every sample it is given. All between them is the product's: groups,
references, rewards, plan, four optimizer steps with old and reference log-probabilities. Bar: the driver's peak resident memory
(VmHWM, with what it maps of Ray's store) stays below 1 GiB. Prints a row, and JSON of it last; exit code 1 when the bar is missed.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # else Ray writes a token into ~/.ray, which later heads then ask for
import ray

from lprl_api.model.formats import WeightFormat
from lprl_api.wire.runconfig import RunConfig
from lprl_fixtures.runs import run_config, write_inputs
from lprl_workload.agent.runner import single_turns
from lprl_workload.config import RankInfo, ResolvedPaths
from lprl_workload.data import Bucket, Metrics, Prompt, SyncReport
from lprl_workload.episode import Float32, token_ids
from lprl_workload.launch.ray_cluster import RayTrainGroup, TrainActorHost
from lprl_workload.launch.ray_engines import EngineActorHost, RayRolloutGroup
from lprl_workload.launch.ray_link import connect
from lprl_workload.rl.collect import Collector
from lprl_workload.rl.prepare import prepare
from lprl_workload.rl.recovery import Budget
from lprl_workload.rl.serving import Serving
from lprl_workload.rollout.requests import Ability, Chunk, EngineState, Part, PauseMode, Request
from lprl_workload.sync.checks import Check
from lprl_workload.sync.manifest import WeightSource
from lprl_workload.sync.peers import Alone, Peers
from lprl_workload.sync.routes import EngineLayout
from lprl_workload.train.actor import MicroBatches

BAR_BYTES = 1 << 30
PROMPT_TOKENS, CHUNK_TOKENS, VOCAB, SAMPLES = 512, 4096, 100_000, 8


class StandInEngine:
    """RolloutEngine: every response fills the episode, and comes in chunks."""

    can: frozenset[Ability] = frozenset({"seed-exact"})
    weight_version = 3

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Draw tokens from the request's seed."""
        rng, left = np.random.default_rng(request.seed), request.sampling.max_response_tokens
        while left:
            left -= (count := min(left, CHUNK_TOKENS))
            ids, logprobs = rng.integers(0, VOCAB, count, np.int32), -rng.random(count, np.float32)
            yield Chunk(ids, logprobs, 3, None if left else "length")

    async def abort(self, ids: Sequence[str] | None = None) -> None:
        """Nothing is open."""

    async def pause(self, mode: PauseMode) -> None:
        """Nothing is open."""

    async def resume(self) -> None:
        """Nothing was open."""

    async def sleep(self, parts: frozenset[Part]) -> None:
        """Nothing to free."""

    async def wake(self, parts: frozenset[Part]) -> None:
        """Nothing was freed."""

    async def state(self) -> EngineState:
        """Always ready."""
        return EngineState(True, True, 3, 0, 0)

    def layout(self) -> EngineLayout:
        """Return that it takes whole tensors."""
        return EngineLayout()

    def begin_update(self, version: int, strong: bool = False) -> None:
        """Nothing to take."""

    def load_bucket(self, bucket: Bucket) -> None:
        """Nothing to take."""

    def end_update(self, version: int, check: Check) -> None:
        """Nothing to take."""

    def abort_update(self, why: str) -> None:
        """Nothing was begun."""

    def probe(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Return the same for everything."""
        return (-1.0,) * (len(ids) - 1)

    def held(self, bucket_bytes: int) -> Iterator[Bucket]:
        """Nothing is held."""
        return iter(())

    def load_held(self, bucket: Bucket) -> None:
        """Nothing to take."""

    def end_held(self, version: int) -> None:
        """Nothing was taken."""

    def lost(self) -> None:
        """It never is."""

    def healthy(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """Nothing to free."""


class StandInTrainer:
    """TrainActor: looks at every token, learns nothing."""

    optimizer_steps = 0

    def logprobs(self, parts: MicroBatches, temperature: float) -> list[list[Float32]]:
        """Return what the engine said, a little off."""
        return [[sample.rollout_logprobs + np.float32(0.01) for sample in part] for part in parts]

    def reference_logprobs(self, parts: MicroBatches, temperature: float) -> list[list[Float32]]:
        """Return the same."""
        return self.logprobs(parts, temperature)

    def train(self, parts: MicroBatches, global_samples: int, global_tokens: int, steps: int | None = None) -> Metrics:
        """Return sums over what this rank was given."""
        samples = [sample for part in parts for sample in part]
        self.optimizer_steps += 1
        assert all(s.old_logprobs is not None and s.ref_logprobs is not None for s in samples)
        return {"samples": float(len(samples)), "tokens": float(sum(s.drawn_tokens for s in samples)), "of": float(global_samples)}

    def set_correction(self, enabled: bool) -> None:
        """Nothing to correct."""

    def source(self) -> WeightSource:
        """Return none: the engines are never pushed to."""
        raise RuntimeError("this benchmark pushes no weights")

    def peers(self) -> Peers:
        """Nobody to push with."""
        return Alone()

    def save(self, directory: Path) -> None:
        """Nothing to save."""

    def load(self, directory: Path) -> None:
        """Nothing to load."""

    def close(self) -> None:
        """Nothing to free."""


class EngineProcess(EngineActorHost):
    """An engine's process with the stand-in."""

    def set_up(self, run: RunConfig, paths: ResolvedPaths, fmt: WeightFormat, device: str) -> None:
        """Take the stand-in."""
        self._engine, self._draw = StandInEngine(), single_turns


class TrainProcess(TrainActorHost):
    """A rank's process with the stand-in."""

    def set_up(self, run: RunConfig, paths: ResolvedPaths, rank: RankInfo) -> None:
        """Take the stand-in."""
        self._run, self._paths, self._rank, self._actor = run, paths, rank, StandInTrainer()


class Engines(RayRolloutGroup):
    """The product's group over stand-ins."""

    host = EngineProcess


class Trainers(RayTrainGroup):
    """The product's group over stand-ins."""

    host = TrainProcess

    def push(self, version: int, strong: bool = False) -> SyncReport:
        """Nothing to push."""
        return SyncReport(version, 0, 0, 0.0, 0.0, "counts")


class Prompts:
    """Prompts of random tokens."""

    def __len__(self) -> int:
        return 1 << 20

    def take(self, position: int, count: int) -> tuple[list[Prompt], int]:
        """Return prompts by position."""
        rows = range(position, position + count)
        return [Prompt(n, "", token_ids(np.random.default_rng(n).integers(0, VOCAB, PROMPT_TOKENS)), "") for n in rows], position + count


def held_bytes(*roots: Any) -> int:
    """Return the bytes of all arrays that can be reached from `roots`."""
    seen: set[int] = set()
    waiting, total = list(roots), 0
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, type | ModuleType | FunctionType):
            continue
        seen.add(id(item))
        if isinstance(item, np.ndarray):
            total += item.nbytes
        waiting += gc.get_referents(item)
    return total


def memory(name: str) -> int:
    """Return a line of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def make_run(root: Path, episodes: int, tokens: int) -> RunConfig:
    """Return a run of one rollout of `episodes`, in four optimizer steps."""
    algorithm = {"steps": 1, "rollout_batch_size": episodes // SAMPLES, "samples_per_prompt": SAMPLES, "global_batch_size": episodes // 4}
    ranks = {"nodes": 2, "slots_per_node": 2, "trainer_ranks": 2, "data_parallel": 2, "engines": 2, "trainer_nodes": 2}
    changes = {
        "algorithm": algorithm | {"kl": {"coefficient": 0.01}},
        "ranks": ranks,
        "sampling": {"max_response_tokens": tokens - PROMPT_TOKENS},
        "trainer": {"max_tokens_per_gpu": 2 * tokens},
    }
    return run_config(root, changes)


def step(run: RunConfig) -> dict[str, Any]:
    """Do one step; returns what it cost."""
    nowhere = Path("/nowhere")
    paths = ResolvedPaths(nowhere, nowhere, nowhere, nowhere, nowhere, None, None)
    engines, trainers, laps, scored = Engines(run, paths), Trainers(run, paths), [time.perf_counter()], [0]
    before = memory("VmRSS")

    def score(prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float]:
        scored[0] += sum(map(len, texts))
        return [float(len(text) % 2) for text in texts]

    engines.admit()  # as after a push
    serving = Serving(trainers, engines, Budget("engines", 3), run.rollout_format, run.shape.vocab)
    collected = Collector(run, Prompts(), score, lambda ids: " ".join(map(str, ids))).collect(1, 0, serving)
    laps.append(time.perf_counter())
    update, found = prepare(collected.episodes, run, trainers, steps=1)
    laps.append(time.perf_counter())
    trained = [trainers.train(update, number) for number in range(len(update.plan.steps))]
    laps.append(time.perf_counter())
    seconds = dict(zip(("collect", "prepare", "train"), np.diff(laps).round(2).tolist(), strict=True))
    return {
        "episodes": len(update.batch), "tokens": int(update.batch.lengths.sum()), "characters": scored[0], "k3": found["k3"],
        "trained": sum(metrics["of"] for metrics in trained), "held_bytes": held_bytes(collected, update),
        "rss_before": before, "rss_peak": memory("VmHWM"), "seconds": seconds,
    }  # fmt: skip


def main() -> int:
    """Measure; returns 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=16384)
    asked = parser.parse_args()
    store = max(100_000_000, 40 * asked.episodes * asked.tokens)
    with tempfile.TemporaryDirectory() as root:
        write_inputs(Path(root), train=4, heldout=4)
        slots = {"lprl_trainer": 2, "lprl_rollout": 2}
        own = {"num_cpus": 2, "resources": slots, "object_store_memory": store, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        if "RAY_ADDRESS" in os.environ:
            connect()
        else:
            ray.init(log_to_driver=False, **own)
        found = step(make_run(Path(root), asked.episodes, asked.tokens))
        ray.shutdown()
    mib = {name: found[name] / (1 << 20) for name in ("rss_before", "rss_peak")}
    print("| episodes | tokens | driver before, MiB | driver peak, MiB | collect and score, s | log-probabilities, s | four steps, s |")
    print("|---|---|---|---|---|---|---|")
    times = " | ".join(f"{value:.1f}" for value in found["seconds"].values())
    print(f"| {found['episodes']} | {found['tokens']} | {mib['rss_before']:.0f} | {mib['rss_peak']:.0f} | {times} |")
    print(json.dumps(found))
    return int(found["rss_peak"] >= BAR_BYTES)


if __name__ == "__main__":
    sys.exit(main())
