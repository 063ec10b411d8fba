"""Runs that compare the two rollout engines: a precision pair, a model, an engine; by `lprl run`, so under a real Ray."""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from benchmarks.training import JOB

from lprl_fixtures.architectures import Architecture
from lprl_fixtures.generate import ModelOptions, TaskOptions, generate_model, generate_task
from lprl_fixtures.lookup import write_lookup

ROOT = Path(__file__).resolve().parents[2]
LEARNS: dict[Architecture, Path] = {
    "qwen3": ROOT / "examples" / "10-qwen3-bf16-bf16.yaml",
    "qwen3-moe": ROOT / "examples" / "20-qwen3-moe-bf16-bf16.yaml",
}
ASKS = ROOT / "examples" / "40-lookup-tool.yaml"
Task = Literal["digit", "tool"]
Engine = Literal["torch", "sglang"]
ENGINES: tuple[Engine, ...] = ("torch", "sglang")
PAIRS: dict[str, dict[str, Any]] = {
    "bf16/bf16": {"training": "bf16", "rollout": "bf16"},
    "bf16/fp8": {"training": "bf16", "rollout": "fp8"},
    "fp8/fp8": {"training": "fp8", "rollout": "fp8"},
    "int4-qat/int4": {"training": "int4-qat", "rollout": "int4", "int4": {"groupSize": 64}},
}
"""spec.precision of each pair."""
TOOL_PAIRS = ("bf16/bf16", "fp8/fp8", "int4-qat/int4")
STALE_PAIRS = ("bf16/bf16", "fp8/fp8")
DIGIT = {"steps": 100, "rolloutBatchSize": 16, "samplesPerPrompt": 16}
TOOL = {"steps": 30, "rolloutBatchSize": 16, "samplesPerPrompt": 8}
"""Of spec.algorithm; the rest is the examples'."""
LOOKS = {"digit": 50, "tool": 15}
"""Steps between two evaluations."""


@dataclass(frozen=True, slots=True)
class EngineCase:
    """One run. Models have the size `blocks`: SGLang takes merged FP8 matrices in multiples of 128 alone."""

    pair: str
    architecture: Architecture
    engine: Engine
    staleness: int = 0
    task: Task = "digit"
    seed: int = 0
    steps: int | None = None
    """None: as many as its task takes."""

    @property
    def mode(self) -> str:
        """The precision pair."""
        return self.pair

    @property
    def name(self) -> str:
        """Name of the folder, of the job and in messages."""
        stale = f"-stale{self.staleness}" if self.staleness else ""
        return f"{self.task}-{self.architecture}-{self.pair.replace('/', '-')}{stale}-{self.engine}"

    @property
    def parts(self) -> tuple[str, str, str, str, int]:
        """Pair, model, engine, task and staleness."""
        return self.pair, self.architecture, self.engine, self.task, self.staleness

    @property
    def key(self) -> str:
        """Digest of the manifest."""
        return hashlib.sha256(json.dumps(self.manifest(), sort_keys=True).encode()).hexdigest()

    def manifest(self) -> dict[str, Any]:
        """Return the example's manifest for this case."""
        found: dict[str, Any] = yaml.safe_load((ASKS if self.task == "tool" else LEARNS[self.architecture]).read_text())
        found["metadata"]["name"] = self.name
        spec, own = found["spec"], TOOL if self.task == "tool" else DIGIT
        steps = self.steps or own["steps"]
        spec["precision"] = PAIRS[self.pair]
        spec["backends"] = {"rollout": self.engine}
        spec["algorithm"] |= own | {"steps": steps, "seed": self.seed, "maxStaleness": self.staleness, "correction": {"type": "tis"}}
        spec["checkpoint"] |= {"everySteps": steps, "keep": 1, "exportFormats": ["bf16"]}
        spec["evaluation"]["everySteps"] = min(LOOKS[self.task], steps)
        if self.staleness:
            spec["topology"] |= {"placement": "split", "nodes": 2}
        return found

    def write_inputs(self, folder: Path) -> Path:
        """Write model, task and manifest; the volumes are folders of `folder`. Returns the manifest's file."""
        manifest = self.manifest()
        spec = manifest["spec"]
        model = folder / spec["model"]["source"]["volume"] / spec["model"]["source"]["path"]
        prompts = (folder / "data" / spec["data"]["prompts"]["path"]).parent
        (folder / "checkpoints").mkdir(parents=True)
        if self.task == "tool":
            import torch

            from lprl_fixtures.lookup_model import write_lookup_model

            torch.set_num_threads(1)  # more are no faster at this size, and far slower beside others
            write_lookup(prompts, self.seed)
            write_lookup_model(model, self.seed, size="blocks")
        else:
            generate_model(model, ModelOptions(self.architecture, "blocks", seed=self.seed))
            generate_task(prompts, TaskOptions(seed=self.seed))
        path = folder / JOB
        path.write_text(yaml.safe_dump(manifest))
        return path


def by_lprl_run(folder: Path, manifest: Path) -> list[str]:
    """Return the command that runs what `write_inputs` wrote."""
    return [sys.executable, "-m", "benchmarks.backends.job", str(folder), str(manifest)]


def cases() -> list[EngineCase]:
    """Return all runs: the digit task in turns, then with staleness 1, then the tool; both engines of a pair one after the other."""
    digit = [EngineCase(pair, model, engine) for pair in PAIRS for model in LEARNS for engine in ENGINES]
    stale = [EngineCase(pair, model, engine, 1) for pair in STALE_PAIRS for model in LEARNS for engine in ENGINES]
    tool = [EngineCase(pair, "qwen3", engine, task="tool") for pair in TOOL_PAIRS for engine in ENGINES]
    return [*digit, *stale, *tool]
