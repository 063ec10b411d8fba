"""Precision pairs of the real model: the example manifest with another precision, seed and number of steps."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from benchmarks.training import write_run

from lprl_api.rules.parse import parse_job
from lprl_fixtures.questions import Question, write_questions

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "real" / "smollm2.yaml"
GPU = {"accelerator": "H200-141GB", "nodes": 1, "gpusPerNode": 1}
HELDOUT = {"add1": 20, "compare": 200, "count": 60, "add2": 60, "story": 100}
TRAIN = 4096


@dataclass(frozen=True, slots=True)
class Pair:
    """A training and a rollout precision."""

    label: str
    precision: dict[str, Any]
    more_seeds: bool = False
    """Whether it is run with three seeds."""


def _int4(training: str, group: int) -> dict[str, Any]:
    return {"training": training, "rollout": "int4", "int4": {"groupSize": group}}


def _fp8(training: str, activations: str = "dynamic") -> dict[str, Any]:
    return {"training": training, "rollout": "fp8", "fp8": {"activations": activations}}


PAIRS = (
    Pair("bf16/bf16", {"training": "bf16", "rollout": "bf16"}),
    Pair("bf16/fp8", _fp8("bf16"), more_seeds=True),
    Pair("fp8/fp8", _fp8("fp8")),
    Pair("fp8-qat/fp8", _fp8("fp8-qat"), more_seeds=True),
    Pair("fp8-qat/fp8 weight-only", _fp8("fp8-qat", "none")),
    Pair("int4-qat/int4 g64", _int4("int4-qat", 64), more_seeds=True),
    Pair("int4-qat/int4 g32", _int4("int4-qat", 32)),
    Pair("bf16/int4 g64", _int4("bf16", 64), more_seeds=True),
)
MATCHED = ("bf16/bf16", "fp8/fp8", "fp8-qat/fp8", "fp8-qat/fp8 weight-only", "int4-qat/int4 g64", "int4-qat/int4 g32")
SHORT = ("int4-qat/int4 g64", "bf16/int4 g64")
"""The matched and the unmatched pair of a CPU run."""


@dataclass(frozen=True, slots=True)
class RealCase:
    """One pair on one task."""

    pair: Pair
    seed: int
    model: Path
    """Folder of the real model, which all cases share."""
    gpu: bool
    task: Question
    changes: dict[str, Any] = field(default_factory=dict)
    """Fields of spec.algorithm, and learningRate."""

    def manifest(self) -> dict[str, Any]:
        """Return the example's manifest for this case."""
        document: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
        spec = document["spec"]
        spec["precision"] = self.pair.precision
        rate = self.changes.get("learningRate", spec["optimizer"]["learningRate"])
        spec["optimizer"] = {"learningRate": rate}
        spec["algorithm"] |= {k: v for k, v in self.changes.items() if k != "learningRate"} | {"seed": self.seed}
        spec["checkpoint"]["everySteps"] = spec["algorithm"]["steps"]
        spec["data"]["prompts"]["path"] = f"{self.task}/train.jsonl"
        spec["evaluation"] |= {"prompts": {"volume": "data", "path": f"{self.task}/heldout.jsonl"}}
        if self.gpu:
            spec["topology"] |= GPU
        return document

    @property
    def architecture(self) -> str:
        """The one model."""
        return "smollm2"

    @property
    def mode(self) -> str:
        """The pair."""
        return self.pair.label

    @property
    def name(self) -> str:
        """Name of the folder and in messages."""
        return f"{self.task}-{self.pair.label.replace('/', '-').replace(' ', '-')}-seed{self.seed}"

    @property
    def key(self) -> str:
        """Digest of the manifest."""
        return hashlib.sha256(json.dumps(self.manifest(), sort_keys=True).encode()).hexdigest()

    def write_inputs(self, folder: Path) -> Path:
        """Write task and RunConfig; the model is a link to the one that all cases share."""
        (folder / "models").mkdir(parents=True)
        (folder / "models" / "smollm2").symlink_to(self.model.resolve(), target_is_directory=True)
        (folder / "data" / self.task).mkdir(parents=True)
        write_questions(folder / "data" / self.task, self.task, 0, TRAIN, HELDOUT[self.task])
        return write_run(parse_job(self.manifest()), folder)
