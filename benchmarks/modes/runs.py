"""One training run of one example manifest, from random weights."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from benchmarks.training import write_run

from lprl_api.rules.parse import parse_job
from lprl_fixtures.architectures import Architecture
from lprl_fixtures.generate import ModelOptions, TaskOptions, generate_model, generate_task

ARCHITECTURE_LABEL = "lprl.dev/demo-architecture"


@dataclass(frozen=True, slots=True)
class Case:
    """An example manifest, a seed and a number of steps."""

    example: Path
    seed: int
    steps: int | None
    """None: what the manifest says."""
    rounded: bool = False
    """Whether the engine rounds the activations of FP8 layers (W8A8), whatever the manifest says."""

    def manifest(self) -> dict[str, Any]:
        """Return the manifest with this case's seed and steps."""
        document: dict[str, Any] = yaml.safe_load(self.example.read_text())
        algorithm = document["spec"]["algorithm"]
        algorithm["seed"] = self.seed
        algorithm["steps"] = self.steps or algorithm["steps"]
        if self.rounded:
            document["spec"]["precision"]["fp8"] = {"activations": "dynamic"}
        return document

    @property
    def architecture(self) -> Architecture:
        """Architecture of the model, from the manifest's label."""
        found: Architecture = self.manifest()["metadata"]["labels"][ARCHITECTURE_LABEL]
        return found

    @property
    def mode(self) -> str:
        """Precision pair, training/rollout, and weight-only where FP8 is served so."""
        precision = self.manifest()["spec"]["precision"]
        weight_only = precision.get("fp8", {}).get("activations") == "none"
        return f"{precision['training']}/{precision['rollout']}{' weight-only' if weight_only else ''}"

    @property
    def name(self) -> str:
        """Name of the folder and in messages."""
        return f"{self.example.stem}{'-w8a8' if self.rounded else ''}-seed{self.seed}"

    @property
    def key(self) -> str:
        """What the result depends on, as a digest; a finished run with another key is made again."""
        return hashlib.sha256(json.dumps(self.manifest(), sort_keys=True).encode()).hexdigest()

    def write_inputs(self, folder: Path) -> Path:
        """Write model, prompts, and the RunConfig; returns the RunConfig's file."""
        job = parse_job(self.manifest())
        source = job.spec.model.source
        generate_model(folder / str(source.volume) / str(source.path), ModelOptions(self.architecture, seed=self.seed))
        generate_task((folder / "data" / str(job.spec.data.prompts.path)).parent, TaskOptions(seed=self.seed))
        return write_run(job, folder)
