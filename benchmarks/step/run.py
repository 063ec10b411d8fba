"""`make bench-step`: one step of SmolLM2-135M-Instruct on the CPU against TRL's GRPO, in one run.

Same model, prompts, task, tokens (every response has the same length: no end token is ever drawn), micro-batch and threads. Ours
quantises weights as it trains and pushes them to its engine in every step; TRL trains and generates in float32 and has nothing to
quantise or to push. Runs alternate; each is a process whose first step is not counted; medians over all other steps.

Needs the packages of `make setup-real` (the model) and `make setup-trl`, which `make bench-step` sees to.
"""

import argparse
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.real.cases import PAIRS, ROOT, RealCase
from benchmarks.training import THREADS, Running, say

from lprl_api.errors import UserError
from lprl_fixtures.smollm2 import write_smollm2

HERE = Path(__file__).resolve().parent
NEVER = ("<jupyter_script>", 15)
"""A token this model never draws: the one that would end a response."""
CASES = ("int4-qat/int4 g64", "fp8-qat/fp8 weight-only")


@dataclass(frozen=True, slots=True)
class StepCase(RealCase):
    """One of our runs."""

    response: int = 12
    """Tokens of every response."""

    def manifest(self) -> dict[str, Any]:
        """Return the example's manifest with responses of one length, without an evaluation."""
        document = RealCase.manifest(self)
        document["spec"]["sampling"]["maxResponseTokens"] = self.response
        del document["spec"]["evaluation"]
        return document


@dataclass(frozen=True, slots=True)
class Steps:
    """Counted steps of one kind of run, seconds each."""

    whole: list[float]
    generate: list[float]
    train: list[float]
    sync: list[float]
    tokens: list[float]
    """Generated in each."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out" / "step", help="folder of the runs")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind, in turn")
    parser.add_argument("--steps", type=int, default=2, help="counted steps of a run")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--samples", type=int, default=8, help="a prompt")
    parser.add_argument("--response", type=int, default=12, help="tokens")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--cases", nargs="+", choices=[pair.label for pair in PAIRS], default=CASES)
    return parser.parse_args()


def endless(model: Path, folder: Path) -> Path:
    """Make a folder of the same model whose responses never end by themselves."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model, folder, copy_function=os.link)
    name, number = NEVER
    for file, changes in (("tokenizer_config.json", {"eos_token": name}), ("generation_config.json", {"eos_token_id": number})):
        document = json.loads((folder / file).read_text()) | changes
        (folder / file).unlink()
        (folder / file).write_text(json.dumps(document))
    return folder


def ours(args: argparse.Namespace, model: Path, label: str) -> Steps:
    changes = {"steps": args.steps + 1, "rolloutBatchSize": args.prompts, "samplesPerPrompt": args.samples}
    case = StepCase(next(p for p in PAIRS if p.label == label), 0, model, False, "add1", changes, args.response)
    run = Running(case, args.out / "ours", args.threads)
    while (code := run.poll()) is None:
        time.sleep(0.2)
    if code:
        raise RuntimeError(run.tail())
    rows = [json.loads(line) for line in next((run.folder / "checkpoints").rglob("metrics.jsonl")).read_text().splitlines()][1:]
    return Steps(
        [r["step_seconds"] for r in rows], [r["generate_seconds"] for r in rows], [r["train_seconds"] for r in rows],
        [r["sync_seconds"] for r in rows], [r["tokens_per_second"] * r["step_seconds"] for r in rows],
    )  # fmt: skip


def theirs(args: argparse.Namespace, model: Path) -> Steps:
    questions = args.out / "ours" / "data" / "add1" / "train.jsonl"
    numbers = [str(n) for n in (args.steps + 1, args.prompts, args.samples, args.response, args.threads)]
    command = [sys.executable, str(HERE / "trl_grpo.py"), str(model), str(questions), *numbers]
    environment = os.environ | dict.fromkeys(THREADS, str(args.threads)) | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=args.out)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    rows = json.loads(done.stdout.splitlines()[-1])[1:]
    nothing = [0.0] * len(rows)
    whole, generate = [r["seconds"] for r in rows], [r["generate_seconds"] for r in rows]
    return Steps(whole, generate, [w - g for w, g in zip(whole, generate, strict=True)], nothing, [r["tokens"] for r in rows])


def table(found: dict[str, list[Steps]]) -> str:
    """Return the rows, and the ratio of each to TRL's run of the same turn."""
    lines = ["| steps of | seconds | generate | train | sync | tokens | times TRL, turn by turn |", "|---|---|---|---|---|---|---|"]
    reference = found["TRL"]
    for name, runs in found.items():
        parts = [median(v for run in runs for v in getattr(run, part)) for part in ("whole", "generate", "train", "sync", "tokens")]
        ratios = sorted(median(run.whole) / median(other.whole) for run, other in zip(runs, reference, strict=True))
        shown = f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        lines.append(f"| {name} | " + " | ".join(f"{value:.2f}" for value in parts[:4]) + f" | {parts[4]:.0f} | {shown} |")
    return "\n".join(lines)


def main() -> int:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        version = importlib.metadata.version("trl")
        plain = args.out / "smollm2"
        if not (plain / "config.json").is_file():
            plain.mkdir(exist_ok=True)
            write_smollm2(plain)
        model = endless(plain, args.out / "endless")
    except importlib.metadata.PackageNotFoundError:
        sys.stderr.write("error: TRL is not installed\n  fix: make setup-trl\n")
        return 3
    except UserError as error:
        sys.stderr.write(f"error: {error.message}\n  fix: {error.remedy}\n")
        return 3
    found: dict[str, list[Steps]] = {label: [] for label in (*args.cases, "TRL")}
    for turn in range(args.repeats):
        for label, runs in found.items():
            runs.append(theirs(args, model) if label == "TRL" else ours(args, model, label))
            say(f"{turn + 1}/{args.repeats} {label}: " + " ".join(f"{s:.2f}" for s in runs[-1].whole) + " s")
    say(
        f"{args.prompts} prompts x {args.samples} samples x {args.response} tokens, {args.threads} threads, TRL {version} (float32, "
        f"one micro-batch, no gradient checkpointing)\n{table(found)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
