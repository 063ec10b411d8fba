"""Decoded tokens/s and seconds of a full push of SglangEngine, in several formats side by side, beside a bare SGLang server.

Needs SGLang, and a GPU for figures that mean anything. Random weights of a real shape, made and quantised here and pushed through the
engine contract (in the mixture of experts all layers and all experts have the same ones); 256 tokens in, 512 out unless said. Decode:
(tokens beyond the first) / (seconds of whole responses - those of one-token responses), medians. `plain` is the same server, asked past
the engine with one request for the whole batch, unstreamed, without log-probabilities: the fastest client there is. `bare` (--bare) is a
server of its own without our other arguments but the output head's, asked so. OUT/SHAPE.json holds every figure.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from benchmarks.gpu.bare import Bare, draw_at
from benchmarks.gpu.shapes import SHAPES, format_of, served, write_shape
from benchmarks.training import say

from lprl_api.errors import UserError
from lprl_workload.data import GenerationRequest, NamedTensor, SamplingParams
from lprl_workload.episode import token_ids
from lprl_workload.io.dtypes import DTYPE_NAMES
from lprl_workload.quant.specs import Spec
from lprl_workload.rollout.completions import complete
from lprl_workload.rollout.sglang.arguments import ServerOptions
from lprl_workload.rollout.sglang.engine import SglangEngine
from lprl_workload.sync.buckets import pack
from lprl_workload.sync.checks import Check
from lprl_workload.sync.checksum import checksum

Draw = Callable[[int, int], float]
"""(rows, tokens of each) -> seconds."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="qwen3-8b")
    parser.add_argument("--formats", nargs="+", choices=("bf16", "fp8", "int4"), default=["bf16", "fp8"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 16, 32, 64, 256])
    parser.add_argument("--input", type=int, default=256)
    parser.add_argument("--output", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--pushes", type=int, default=2, help="full pushes; the first one is checked byte by byte (default 2)")
    parser.add_argument("--bucket-mib", type=int, default=512)
    parser.add_argument("--memory-fraction", type=float, default=0.6)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--tensor", type=int, default=1, help="tensor-parallel ranks, a GPU each")
    parser.add_argument("--expert", type=int, default=1, help="expert-parallel groups of them")
    parser.add_argument("--bf16-head", action="store_true", help="output heads in BF16: what is served then is not near the trainer's")
    parser.add_argument("--no-plain", dest="plain", action="store_false", help="do not ask the engine's server past the engine")
    parser.add_argument("--bare", action="store_true", help="measure a bare server, too")
    parser.add_argument("--out", type=Path, default=Path("bench-out/serve"))
    return parser.parse_args()


def push(engine: SglangEngine, tensors: Iterator[NamedTensor], version: int, strong: bool, bucket_bytes: int) -> dict[str, float]:
    """Push a whole model; the seconds in which its tensors were made are told apart."""
    specs, sums, made = list[Spec](), dict[str, int](), [0.0]

    def noted() -> Iterator[NamedTensor]:
        while True:
            began = time.perf_counter()
            item = next(tensors, None)
            if item is not None and item.tensor.is_cuda:
                torch.cuda.synchronize()
            made[0] += time.perf_counter() - began
            if item is None:
                return
            specs.append((item.name, DTYPE_NAMES[item.tensor.dtype], tuple(item.tensor.shape)))
            if strong:
                sums[item.name] = int(checksum(item.tensor))
            yield item

    began, nbytes = time.perf_counter(), 0
    engine.begin_update(version, strong)
    for bucket in pack(noted(), bucket_bytes):
        engine.load_bucket(bucket)
        nbytes += bucket.data.numel()
    engine.end_update(version, Check.of(specs, sums if strong else None))
    return {"seconds": time.perf_counter() - began - made[0], "made_seconds": made[0], "gb": nbytes / 1e9, "tensors": len(specs)}


def prompts(rows: int, tokens: int, vocabulary: int) -> list[list[int]]:
    rng = random.Random(rows)
    return [[rng.randrange(vocabulary // 8, vocabulary) for _ in range(tokens)] for _ in range(rows)]


def ours(engine: SglangEngine, args: argparse.Namespace, vocabulary: int) -> Draw:
    def draw(rows: int, tokens: int) -> float:
        asked = [GenerationRequest(token_ids(ids), n) for n, ids in enumerate(prompts(rows, args.input, vocabulary))]
        began = time.perf_counter()
        done = asyncio.run(complete(engine, asked, SamplingParams(1.0, 1.0, None, tokens)))
        seconds = time.perf_counter() - began
        return seconds * rows * tokens / sum(len(c.response_ids) for c in done)

    return draw


def decode(draw: Draw, batches: Sequence[int], tokens: int, repeats: int) -> dict[int, int]:
    """Return decoded tokens/s by batch."""
    found = {}
    for rows in batches:
        draw(rows, 8)
        first = median(draw(rows, 1) for _ in range(3))
        whole = median(draw(rows, tokens + 1) for _ in range(repeats))
        found[rows] = round(rows * tokens / (whole - first))
    return found


def plainly(engine: SglangEngine, args: argparse.Namespace, kind: str, vocabulary: int, found: dict[str, Any]) -> None:
    """Add what the engine's server does when it is asked past the engine."""
    server = engine._there()
    asked = partial(draw_at, server.address, server.data_key)
    plain = decode(lambda rows, n: asked(prompts(rows, args.input, vocabulary), n), args.batches, args.output, args.repeats)
    shares = {rows: round(found["decode"][rows] / plain[rows], 3) for rows in args.batches}
    found |= {"plain": plain, "share_of_plain": shares}
    say(f"{args.shape} {kind}: the same server asked plainly {plain}, ours/plain {shares}")


def measure(args: argparse.Namespace, kind: str) -> dict[str, Any]:
    """Return the figures of one format."""
    folder = args.out / f"{args.shape}-model"
    config, shape = write_shape(folder, args.shape)
    fmt = format_of(kind, shape)
    options = ServerOptions(args.tensor, args.expert, tuple(args.batches), sleeps=False, fp32_head=not args.bf16_head)
    context = args.input + args.output + 64
    began = time.perf_counter()
    engine = SglangEngine(
        folder, fmt, shape, args.device, context_length=context, max_concurrency=max(args.batches),
        memory_fraction=args.memory_fraction, server=options,
    )  # fmt: skip
    found: dict[str, Any] = {"start_seconds": time.perf_counter() - began, "release": ".".join(map(str, engine._release.version))}
    say(f"{args.shape} {kind}: up after {found['start_seconds']:.1f} s")
    try:
        found["pushes"] = [
            push(engine, served(config, fmt, shape, args.device, n, alike=shape.moe is not None), n, n == 1, args.bucket_mib << 20)
            for n in range(1, args.pushes + 1)
        ]
        say(f"{args.shape} {kind}: pushes {json.dumps(found['pushes'])}")
        told = args.batches, args.output, args.repeats
        found["decode"] = decode(ours(engine, args, shape.vocab), *told)
        say(f"{args.shape} {kind}: decode {found['decode']}")
        if args.plain:
            plainly(engine, args, kind, shape.vocab, found)
    finally:
        engine.close()
        torch.cuda.empty_cache()
    if args.bare:
        with Bare(folder, fmt, shape, args, context) as bare:
            found["bare_start_seconds"] = bare.start_seconds
            found["bare"] = decode(
                lambda rows, tokens: bare.draw(prompts(rows, args.input, shape.vocab), tokens), args.batches, args.output, args.repeats
            )
        found["share_of_bare"] = {rows: round(found["decode"][rows] / found["bare"][rows], 3) for rows in args.batches}
        say(f"{args.shape} {kind}: bare {found['bare']}, ours/bare {found['share_of_bare']}")
    return found


def main() -> int:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for kind in args.formats:
        try:
            found[kind] = measure(args, kind)
        except UserError as error:
            found[kind] = {"refused": str(error.message)}
            say(f"{args.shape} {kind}: refused: {error.message}")
        (args.out / f"{args.shape}.json").write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
