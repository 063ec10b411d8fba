"""A run whose two sides are a few lines of arithmetic, deterministic, and note every call: for the loop's order and recovery.

The trainer is one number w; a response's tokens and reward follow from (seed, w), so any difference in the order of pushes,
seeds, positions or restored state changes every number after it.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.lprl_workload.rl.document import DOCUMENT, changed
from tests.unit.lprl_workload.rl.played_world import World

from lprl_api.derived.residency import ENGINE_PARTS, TRAIN_PARTS, EnginePart, TrainPart
from lprl_api.model.formats import WeightFormat
from lprl_api.wire.progress import Control, Progress
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.checkpoint.store import CheckpointStore
from lprl_workload.data import GenerationRequest, Metrics, Prompt, SamplingParams, SyncReport
from lprl_workload.episode import BatchRef, Episode, EpisodeRef, described, drawn, token_ids, world
from lprl_workload.io.parts import FileRecord, PartReader, write_part
from lprl_workload.metrics.progress import Reporter
from lprl_workload.process.errors import EngineLostError, TrainerLostError
from lprl_workload.rl.collect import Collector
from lprl_workload.rl.device import shares_devices
from lprl_workload.rl.evaluation import Evaluator
from lprl_workload.rl.groups import Update
from lprl_workload.rl.loop import Loop
from lprl_workload.rl.records import Records
from lprl_workload.rollout.pool import Keeper
from lprl_workload.train.advantage import Moments, Rule
from lprl_workload.train.mismatch import MismatchSums, mismatch
from lprl_workload.train.rank import Whose, rank_moments, train_sample


def number(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "little")


class Engines:
    def __init__(self, world: World, fmt: WeightFormat) -> None:
        self.world, self.format, self.w, self.version = world, fmt, 0.0, -1
        self.fetched = self.living = 0

    def admit(self) -> None:
        self.living = 1

    def generate(self, requests: Sequence[GenerationRequest], params: SamplingParams, keeper: Keeper) -> list[EpisodeRef]:
        assert self.version >= 0, "generated before the first push"
        assert self.world.engine_up == ENGINE_PARTS and self.living, "generated while asleep, or before it was admitted"
        try:
            self.world.note(f"generate v{self.version} t{params.temperature:g}")
        except EngineLostError as error:
            self.living = 0
            keeper.lost(error, 0)
            keeper.none_left()
            return self.generate(requests, params, keeper)
        found = []
        for place, request in enumerate(requests):
            token = number(request.seed, request.prompt_ids.tolist(), self.w) % 1000
            turns = world(request.prompt_ids), drawn([token, token + 1], self.world.logprobs(place), self.version)
            finish = "stop" if token % 3 else "length"
            episode = Episode(request.prompt, request.group, request.sample, turns, finish)  # type: ignore[arg-type]
            found.append(described(episode, episode))
        return found

    def fetch(self, refs: Sequence[EpisodeRef]) -> list[Episode]:
        self.fetched += len(refs)
        waiting = self.world.faults.get("fetch", [])
        if waiting:
            raise waiting.pop(0)
        return [ref.ref for ref in refs]

    def give_up(self, number: int) -> bool:
        known, self.living = not self.living, 0
        return not known

    def pause(self) -> None:
        self.world.journal.append("pause")

    def resume(self) -> None:
        self.world.journal.append("resume")

    def abort(self) -> None:
        self.world.journal.append("abort")

    def sleep(self, parts: frozenset[EnginePart]) -> None:
        self.world.move("engines", self.world.engine_up, "sleep", parts & self.world.engine_up)
        if "weights" in parts:
            self.version = -1

    def wake(self, parts: frozenset[EnginePart]) -> None:
        self.world.move("engines", self.world.engine_up, "wake", parts)

    def replace_lost(self) -> list[int]:
        self.world.note("replace")
        self.version = -1
        self.world.engine_up |= ENGINE_PARTS
        return [0]

    def copy_version(self, version: int) -> bool:
        return False  # it has no peer

    def probe(self, ids: Sequence[int]) -> list[tuple[float, ...]]:
        assert "weights" in self.world.engine_up and self.version >= 0
        return [(0.0,) * (len(ids) - 1)]

    def switch_format(self, fmt: WeightFormat) -> None:
        self.format, self.version = fmt, -1
        self.world.engine_up |= ENGINE_PARTS
        self.world.note(f"format {fmt.kind}")

    def close(self) -> None:
        self.world.journal.append("close engines")


class Trainer:
    def __init__(self, world: World, engines: Engines) -> None:
        self.world, self.engines = world, engines
        self.w, self.steps, self.corrected = 1.0, 0, False
        self.pushed = (-1, 1.0)

    def sleep(self, parts: frozenset[TrainPart]) -> None:
        self.world.move("trainer", self.world.trainer_up, "sleeps", parts)

    def wake(self, parts: frozenset[TrainPart]) -> None:
        self.world.move("trainer", self.world.trainer_up, "wakes", parts)

    def needs(self, *parts: TrainPart) -> None:
        assert self.world.trainer_up >= set(parts), f"{parts} needed, {self.world.trainer_up} there"

    def logprobs(self, batch: BatchRef, of: Whose, temperature: float) -> tuple[tuple[Any, ...], list[MismatchSums]]:
        self.needs("weights" if of == "policy" else "reference")
        self.world.note("logprobs" if of == "policy" else "reference")
        shift = self.world.k3(self.steps) if of == "policy" else 0.0
        rows = tuple(ref.ref.logprobs + np.float32(shift) for ref in batch.episodes)
        return rows, [mismatch(row, ref.ref.logprobs) for row, ref in zip(rows, batch.episodes, strict=True)]

    def moments(self, batch: BatchRef, values: Sequence[float], rule: Rule) -> list[Moments]:
        self.world.note("moments")
        return rank_moments(values, rule, [ref.ref for ref in batch.episodes], batch.old or (), batch.reference or ())

    def train(self, update: Update, step: int) -> Metrics:
        self.needs("weights", "optimizer")
        whole = update.plan.steps[step]
        self.world.note(f"train {whole.last - whole.first}")
        for n in range(whole.first, whole.last):
            sample = train_sample(update.batch.episodes[n].ref, update.values[n], update.rule, None, None)
            self.w += float(sample.advantage[0] * sample.ids[sample.mask][0]) / 1000
        self.w += self.corrected
        self.steps += 1
        return {"loss": self.w, "k3": self.world.k3(self.steps), "logprob_diff": 0.5, "learning_rate": 1 / (update.steps or 0)}

    def set_correction(self, enabled: bool) -> None:
        self.world.note(f"correction {enabled}")
        self.corrected = enabled

    def push(self, version: int, strong: bool = False) -> SyncReport:
        assert version > self.engines.version and "weights" in self.world.engine_up
        self.needs("weights")
        self.world.note(f"push v{version}")
        self.engines.w, self.engines.version = self.w, version
        self.pushed = (version, self.w)
        return SyncReport(version, 1, 8, 0.0, 0.125, "counts")

    def probe(self, ids: Sequence[int]) -> tuple[float, ...]:
        self.needs("weights")
        return (0.0,) * (len(ids) - 1)

    def holds(self, version: int) -> bool:
        return self.pushed == (version, self.w)

    def begin_save(self, directory: Path) -> None:
        self.world.note("save")
        self.saving = directory / "w.json", json.dumps([self.w, self.steps])

    def finish_save(self, wait: bool) -> tuple[FileRecord, ...] | None:
        if self.world.writing > 0 and not wait:
            self.world.writing -= 1
            return None
        if waiting := self.world.faults.get("write", []):
            raise waiting.pop(0)
        return (write_part(self.saving[0], self.saving[1].encode()),)

    def export(self, directory: Path) -> tuple[FileRecord, ...]:
        self.needs("weights")
        return (write_part(directory / "model.safetensors", str(self.w).encode()),)

    def load(self, directory: Path, records: Sequence[FileRecord]) -> None:
        self.needs("weights", "optimizer")
        self.world.note("load")
        with PartReader(directory / "w.json", records[0]) as reader:
            self.w, self.steps = json.loads(bytes(reader.read(0, reader.size)))

    def rebuild(self) -> None:
        self.world.note("rebuild")
        self.world.trainer_up |= TRAIN_PARTS
        self.w, self.steps, self.corrected = 1.0, 0, False

    def close(self) -> None:
        self.world.journal.append("close trainer")


class Prompts:
    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def take(self, position: int, count: int) -> tuple[list[Prompt], int]:
        wanted = [n % self.rows for n in range(position, position + count)]
        return [Prompt(n, f"p{n}", token_ids((n, n + 1)), str(n)) for n in wanted], position + count


def reward_of(prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float]:
    return [float(number(prompt.index, text) % 2) for prompt, text in zip(prompts, texts, strict=True)]


class Bench:
    """Builds attempts of one run in a folder."""

    def __init__(self, root: Path, document: dict[str, Any]) -> None:
        self.root, self.run = root, RunConfig.model_validate(document)
        self.control: Control | None = None
        self.score = reward_of

    def attempt(
        self, number: int = 1, world: World | None = None, rows: int = 5, recorded_step: int = 0, load_from: Path | None = None
    ) -> tuple[Loop, World, Trainer, Engines]:
        world = world or World()
        if shares_devices(self.run):  # as they are built: the trainer with all its parts, the engines asleep
            world.trainer_up, world.engine_up = set(TRAIN_PARTS), set()
        engines = Engines(world, self.run.rollout_format)
        trainer = Trainer(world, engines)
        store = CheckpointStore(self.root, number, self.run.checkpoint.keep)
        store.take_over()
        collector = Collector(self.run, Prompts(rows), self.score, lambda ids: " ".join(map(str, ids)))
        evaluator = None
        if self.run.evaluation is not None:
            evaluator = Evaluator(self.run.evaluation, Prompts(3), collector, self.run.sampling, self.run.algorithm.seed)
        first = Progress(attempt=number, sequence=0, phase="starting", step=0, steps=self.run.algorithm.steps)
        reporter = Reporter(None, first, 60.0, self.control)
        records = Records(self.root, number)
        loop = Loop(self.run, trainer, engines, collector, evaluator, store, records, reporter, load_from, recorded_step)
        return loop, world, trainer, engines

    def series(self) -> list[dict[str, Any]]:
        """Rows without what may differ between attempts."""
        rows = [json.loads(line) for line in (self.root / "metrics.jsonl").read_text().splitlines()]
        dropped = ("attempt", "time", "weight_version", "tokens_per_second")
        return [{k: v for k, v in row.items() if k not in dropped and not k.endswith("_seconds")} for row in rows]

    def evaluations(self) -> list[dict[str, Any]]:
        """Rows without the count of pushes, which recoveries add to."""
        rows = [json.loads(line) for line in (self.root / "evaluations.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if k != "weight_version"} for row in rows]


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    """bench(changes): a run in a fresh folder; bench(changes, name) several in one test."""

    def make(changes: dict[str, Any] | None = None, name: str = "run") -> Bench:
        return Bench(tmp_path / name, changed(DOCUMENT, changes or {}))

    return make


@pytest.fixture
def new_world() -> Callable[..., World]:
    return World


@pytest.fixture
def lost() -> tuple[Callable[[], Exception], Callable[[], Exception]]:
    """(an engine was lost, a trainer was lost)."""
    return lambda: EngineLostError(0, "killed"), lambda: TrainerLostError("killed")
