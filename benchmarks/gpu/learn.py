"""The learning task end to end on a GPU, in several precision pairs, trainers and engines: reward, held-out reward, K3 of every step.

Needs SGLang, or `--engines torch`; megatron-core and TransformerEngine with `--trainer megatron`. In-process launcher; trainer and
engine take turns on one device. The models are small random ones of widths that SGLang serves in every format (shapes.py).
OUT/learn.json holds every step. Exit code 1 when a run fails or does not learn.
"""

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from benchmarks.gpu.shapes import write_shape
from benchmarks.training import document, result_of, run_all, say, write_run
from safetensors.torch import save_file

from lprl_api.rules.parse import parse_job
from lprl_fixtures.generate import TaskOptions, generate_task
from lprl_fixtures.tensors import tensor_specs
from lprl_fixtures.weights import initial_tensor

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "10-qwen3-bf16-bf16.yaml"
LEARNED = 0.8
PAIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "bf16/bf16": ("dense", {"training": "bf16", "rollout": "bf16"}),
    "bf16/fp8": ("dense", {"training": "bf16", "rollout": "fp8"}),
    "fp8/fp8": ("dense", {"training": "fp8", "rollout": "fp8"}),
    "fp8-qat/fp8": ("dense", {"training": "fp8-qat", "rollout": "fp8"}),
    "int4-qat/int4": ("moe", {"training": "int4-qat", "rollout": "int4", "int4": {"groupSize": 128}}),
    "bf16/int4": ("moe", {"training": "bf16", "rollout": "int4", "int4": {"groupSize": 128}}),
}
"""Model and spec.precision of each pair."""


@dataclass(frozen=True, slots=True)
class Learning:
    """One pair with one engine."""

    pair: str
    engine: str
    size: str
    """small or tiny, of shapes.py."""
    gpu: bool
    steps: int
    rate: float
    memory_fraction: float
    trainer: str = "torch"
    seed: int = 0

    @property
    def architecture(self) -> str:
        """Shape of the model."""
        return self.size if PAIRS[self.pair][0] == "dense" else f"{self.size}-moe"

    @property
    def mode(self) -> str:
        """Pair and engine."""
        return f"{self.pair} {self.trainer}, {self.engine}"

    @property
    def name(self) -> str:
        """Name of the folder and in messages."""
        return f"{self.pair.replace('/', '-')}-{self.trainer}-{self.engine}"

    @property
    def key(self) -> str:
        """Digest of the manifest."""
        return hashlib.sha256(json.dumps([self.manifest(), self.architecture], sort_keys=True).encode()).hexdigest()

    def manifest(self) -> dict[str, Any]:
        """Return the example's manifest for this case."""
        found: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
        spec = found["spec"]
        spec["precision"] = PAIRS[self.pair][1]
        spec["backends"] = {"trainer": self.trainer, "rollout": self.engine}
        spec["algorithm"] |= {"steps": self.steps, "seed": self.seed}
        spec["optimizer"] = {"learningRate": self.rate}
        spec["checkpoint"] |= {"everySteps": self.steps, "keep": 1, "exportFormats": ["bf16"]}
        spec["evaluation"]["everySteps"] = min(20, self.steps)
        if self.gpu:
            rollout = {"memoryFraction": self.memory_fraction, "cudaGraphBatchSizes": [8, 64, 256], "maxConcurrency": 256}
            spec["topology"] |= {"accelerator": "H200-141GB", "gpusPerNode": 1, "rollout": rollout}
        return found

    def write_inputs(self, folder: Path) -> Path:
        """Write model, task and RunConfig."""
        job = parse_job(self.manifest())
        model = folder / str(job.spec.model.source.volume) / str(job.spec.model.source.path)
        config, _ = write_shape(model, self.architecture)
        tensors = {spec.name: initial_tensor(spec, torch.bfloat16, self.seed, 0.02) for spec in tensor_specs(config, False)}
        save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
        generate_task((folder / "data" / str(job.spec.data.prompts.path)).parent, TaskOptions(seed=self.seed))
        return write_run(job, folder)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", choices=list(PAIRS), default=["bf16/bf16", "fp8/fp8", "int4-qat/int4"])
    parser.add_argument("--engines", nargs="+", choices=("sglang", "torch"), default=["sglang"])
    parser.add_argument("--trainer", choices=("torch", "megatron"), default="torch")
    parser.add_argument("--size", choices=("small", "tiny"), default="small")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--rate", type=float, default=1e-4, help="learning rate (default 1e-4: at 3e-4 the small model does not learn)")
    parser.add_argument("--memory-fraction", type=float, default=0.1)
    parser.add_argument("--at-a-time", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out" / "learn")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    told = (args.size, torch.cuda.is_available(), args.steps, args.rate, args.memory_fraction, args.trainer)
    cases = [Learning(pair, engine, *told) for pair in args.pairs for engine in args.engines]
    failures = run_all(cases, args.out, args.at_a_time, 1)
    sys.stderr.write("".join(f"{text}\n\n" for text in failures))
    results = [result_of(case, args.out / case.name) for case in cases if (args.out / case.name / "done.json").is_file()]
    (args.out / "learn.json").write_text(json.dumps([{**document(r), "rows": r.steps} for r in results], indent=1))
    for r in results:
        f = r.figures
        verdict = "ok  " if f.reward_last >= LEARNED else "MISS"
        curve = " ".join(f"{row['k3']:.1e}" for row in r.steps[:: max(1, len(r.steps) // 6)])
        say(
            f"{verdict} {f.mode} ({f.architecture}): reward {f.reward_first:.3f} -> {f.reward_last:.3f}, held-out {f.heldout_last:.3f}, "
            f"k3 mean {f.k3_mean:.1e} [{curve}], |dlogp| {f.logprob_diff_mean:.4f}, {f.tokens_per_second:.0f} tok/s, {f.seconds:.0f} s"
        )
    return 0 if not failures and all(r.figures.reward_last >= LEARNED for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
