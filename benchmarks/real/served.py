"""K3 between the trainer and a real engine: SGLang serves the real model in every format, the trainer scores what it drew.

Needs a GPU and SGLang, in an environment of its own whose interpreter `--sglang-python` names. Block FP8 and INT4 are served with the
widths of padded.py. SGLang 0.5.17 renames the scales of block FP8 in its Llama class; block FP8 needs that condition mended in the
installed `models/llama.py` (rename only without `weight_block_size`). `--score` starts no engine and scores what lies in OUT.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.real.padded import write_padded
from benchmarks.training import say

from lprl_api.model.formats.chosen import training_format
from lprl_api.model.hf_config import shape_from_config
from lprl_api.spec.algorithm import Optimizer
from lprl_api.spec.precision import Precision
from lprl_workload.config import RankInfo
from lprl_workload.episode import TrainSample
from lprl_workload.train.batch import collate
from lprl_workload.train.build import build_trained
from lprl_workload.train.group import Group

SAMPLE = Path(__file__).with_name("sglang_sample.py")
AT_A_TIME, LIMIT_S, BATCH = 6, 240.0, 64
RATIO = math.log(2.0)
TOPICS = (
    "rain", "bread", "the moon", "a bicycle", "sleep", "music", "a volcano", "money", "glass", "chess", "the heart", "a rainbow",
    "gravity", "the sea", "a garden", "an old clock",
)  # fmt: skip
FORMS = (
    "Explain {} to a child in two sentences.", "Write a short paragraph about {}.", "Name three facts about {}.", "Why does {} matter?",
    "Tell a very short story about {}.", "What do people get wrong about {}?", "Define {} in one line.", "Ask me a question about {}.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Served:
    """One engine: what it serves, and the trainers that are compared with it."""

    name: str
    base: str
    """model (its own widths) or padded."""
    convert: tuple[str, ...]
    """Arguments of the conversion; empty: the folder as it is."""
    precisions: tuple[dict[str, Any], ...]
    """spec.precision of each trainer compared."""
    environment: dict[str, str] = field(default_factory=dict)


def _fp8(strategy: str, activations: str, *trainings: str) -> tuple[dict[str, Any], ...]:
    fp8 = {"strategy": strategy, "activations": activations}
    return tuple({"training": training, "rollout": "fp8", "fp8": fp8} for training in trainings)


def _int4(group: int) -> tuple[dict[str, Any], ...]:
    return tuple({"training": training, "rollout": "int4", "int4": {"groupSize": group}} for training in ("int4-qat", "bf16"))


BF16: tuple[dict[str, Any], ...] = ({"training": "bf16", "rollout": "bf16"},)
WEIGHT_ONLY = {"SGLANG_FORCE_FP8_MARLIN": "1"}
"""Block FP8 has no word for BF16 activations: SGLang's own switch (Hopper; GPUs without FP8 units do so by themselves)."""
TENSOR = ("--to", "fp8-tensor", "--activations", "none")
ENGINES = (
    Served("fp8-block", "padded", ("--to", "fp8-block"), _fp8("block", "dynamic", "fp8-qat", "fp8", "bf16")),
    Served("fp8-block-weight-only", "padded", ("--to", "fp8-block"), _fp8("block", "none", "fp8-qat", "bf16"), WEIGHT_ONLY),
    Served("bf16", "padded", (), BF16),
    Served("int4-g64", "padded", ("--to", "int4-group", "--group-size", "64"), _int4(64)),
    Served("fp8-channel", "model", ("--to", "fp8-channel"), _fp8("channel", "dynamic", "fp8-qat", "bf16")),
    Served("int4-g32", "padded", ("--to", "int4-group", "--group-size", "32"), _int4(32)),
    Served("bf16-own-widths", "model", (), BF16),
    Served(
        "fp8-channel-weight-only", "padded", ("--to", "fp8-channel", "--activations", "none"), _fp8("channel", "none", "fp8-qat", "bf16")
    ),
    Served("int4-g128", "padded", ("--to", "int4-group", "--group-size", "128"), _int4(128)),
)


def questions() -> list[str]:
    """Return 128 sums and 128 other questions."""
    sums = [f"What is {7 * i % 89 + 1} {'+-*'[i % 3]} {11 * i % 97 + 1}? Think step by step, then give the number." for i in range(128)]
    return sums + [form.format(topic) for topic in TOPICS for form in FORMS]


def write_prompts(model: Path, out: Path) -> None:
    """Write the questions as token ids of chats."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(model), local_files_only=True)
    chats = [[{"role": "user", "content": text}] for text in questions()]
    ids = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"] for chat in chats]
    out.write_text(json.dumps({"ids": ids, "eos": tokenizer.eos_token_id}))


def prepare(model: Path, work: Path, engines: Sequence[Served]) -> None:
    """Make the padded model and convert what the engines serve, all conversions at once."""
    if not (work / "model").exists():
        (work / "model").symlink_to(model.resolve(), target_is_directory=True)
    if not (work / "padded").exists():
        write_padded(model, work / "padded")
    started = {}
    for folder, engine in {_folder(e): e for e in engines if e.convert}.items():
        if not (work / folder).exists():
            command = [sys.executable, "-m", "lprl_workload", "convert-all", str(work / engine.base), str(work / folder), *engine.convert]
            started[folder] = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    for folder, process in started.items():
        if process.wait():
            raise SystemExit(f"{folder}: its conversion ended with {process.returncode}")


def _folder(engine: Served) -> str:
    return "-".join([engine.base, *(part for part in engine.convert if not part.startswith("--"))])


def sample(engine: Served, python: str, work: Path, out: Path, port: int) -> str:
    """Run one engine; returns what went wrong, empty when nothing did."""
    result, log = out / f"{engine.name}.json", out / f"{engine.name}.log"
    if result.exists():
        return ""
    command = [python, "-P", str(SAMPLE), str(work / _folder(engine)), str(out / "prompts.txt"), str(result), str(port)]
    with log.open("wb") as sink:
        try:
            subprocess.run(command, env=os.environ | engine.environment, stdout=sink, stderr=sink, timeout=LIMIT_S, check=False)
        except subprocess.TimeoutExpired:
            return f"no answer in {LIMIT_S:.0f} s"
    return "" if result.exists() else "\n".join(log.read_text(errors="replace").splitlines()[-6:])


@torch.no_grad()
def trainer_logprobs(folder: Path, precision: Precision, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> list[list[float]]:
    """Return the trainer's log-probability of every answered token, sequence by sequence; `folder` holds the BF16 weights."""
    shape = shape_from_config(json.loads((folder / "config.json").read_text()))
    group = Group(RankInfo(0, 1, "cuda" if torch.cuda.is_available() else "cpu"))
    trained = build_trained(
        folder, training_format(precision, shape.moe is not None), shape, Optimizer(), group, recompute=False, shard=False
    )
    found = []
    for start in range(0, len(prompts), BATCH):
        pairs = list(zip(prompts[start : start + BATCH], answers[start : start + BATCH], strict=True))
        batch = collate([_scored(prompt, answer) for prompt, answer in pairs], group.device)
        logprobs, _ = trained.policy(batch, 1.0, False)
        found += [row[: len(answer)].tolist() for row, (_, answer) in zip(batch.spread(logprobs), pairs, strict=True)]
    return found


def _scored(prompt: Sequence[int], answer: Sequence[int]) -> TrainSample:
    """Return a sample whose answer counts as drawn; its other values are not asked for."""
    ids = np.asarray([*prompt, *answer], np.int32)
    unused = np.zeros(len(answer), np.float32)
    return TrainSample(ids, np.arange(len(ids)) >= len(prompt), unused, unused)


def mismatch(engine: Sequence[Sequence[float]], trainer: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return what an engine's and a trainer's log-probabilities of the same tokens say of their distance."""
    rows = [[t - e for t, e in zip(ts, es, strict=True)] for ts, es in zip(trainer, engine, strict=True)]
    flat = [d for row in rows for d in row]
    sizes = sorted(abs(d) for d in flat)
    return {
        "tokens": len(flat),
        "k3": sum(math.exp(d) - 1.0 - d for d in flat) / len(flat),
        "logprob_diff": sum(sizes) / len(sizes),
        "logprob_diff_p99": sizes[int(0.99 * len(sizes))],
        "logprob_diff_max": sizes[-1],
        "ratio_outside_half_to_two": sum(size > RATIO for size in sizes) / len(sizes),
        "effective_sample_size_tokens": _effective(flat),
        "effective_sample_size_sequences": _effective([sum(row) for row in rows]),
    }


def _effective(logs: Sequence[float]) -> float:
    """Return the effective sample size, as a share, of importance weights with these logarithms."""
    top = max(logs)
    weights = [math.exp(value - top) for value in logs]
    return sum(weights) ** 2 / len(weights) / sum(weight * weight for weight in weights)


def score(engine: Served, work: Path, out: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for every trainer compared with `engine`."""
    drawn = json.loads((out / f"{engine.name}.json").read_text())
    prompts = json.loads((out / "prompts.txt").read_text())["ids"]
    for precision in engine.precisions:
        trainer = trainer_logprobs(work / engine.base, Precision.model_validate(precision), prompts, drawn["ids"])
        yield {"engine": engine.name, "precision": precision, "sglang": drawn["sglang"]} | mismatch(drawn["logprobs"], trainer)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the real model (python -m lprl_fixtures smollm2)")
    parser.add_argument("--work", type=Path, required=True, help="folder of the converted models")
    parser.add_argument("--out", type=Path, required=True, help="folder of what the engines drew, and of served.json")
    parser.add_argument("--sglang-python", default=sys.executable, help="interpreter that has SGLang")
    parser.add_argument("--engines", nargs="+", choices=[engine.name for engine in ENGINES], help="only these")
    parser.add_argument("--score", action="store_true", help="start no engine")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    args.work.mkdir(parents=True, exist_ok=True)
    engines = [engine for engine in ENGINES if engine.name in (args.engines or [e.name for e in ENGINES])]
    prepare(args.model, args.work, engines)
    if not (args.out / "prompts.txt").exists():
        write_prompts(args.model, args.out / "prompts.txt")
    rows: list[dict[str, Any]] = []
    failed = 0
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        asked = {} if args.score else {
            pool.submit(sample, e, args.sglang_python, args.work, args.out, 30000 + 40 * i): e for i, e in enumerate(engines)
        }  # fmt: skip
        ended = ((asked[done], done.result()) for done in as_completed(asked)) if asked else ((engine, "") for engine in engines)
        for engine, problem in ended:
            if problem:
                failed += 1
                say(f"FAILED  {engine.name}: {problem}")
                continue
            began = time.monotonic()
            for row in score(engine, args.work, args.out):
                rows.append(row)
                said = f"{row['precision']['training']} against {engine.name}: K3 {row['k3']:.2e} over {row['tokens']} tokens"
                say(f"{said} ({time.monotonic() - began:.1f} s)")
                (args.out / "served.json").write_text(json.dumps({"device": _device(), "rows": rows}, indent=2) + "\n")
    return 1 if failed or not rows else 0


def _device() -> str:
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"


if __name__ == "__main__":
    sys.exit(main())
