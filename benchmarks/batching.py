"""Continuous batching against batch at once, on one engine and the same requests of mixed lengths.

Requests have response limits drawn from an exponential distribution (8 to 256 tokens); the engine works at 32 rows at a time. At
once: the next 32 begin when the longest of the 32 before has ended. Both give the same responses, bit for bit.
"""

import asyncio
import json
import random
import tempfile
import time
from pathlib import Path

import torch

from lprl_api.model.formats import Bf16
from lprl_api.model.hf_config import shape_from_config
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_workload.data import SamplingParams
from lprl_workload.episode import token_ids
from lprl_workload.rollout.engine_torch import TorchEngine
from lprl_workload.rollout.requests import Chunk, Request

ROWS, REQUESTS, ROUNDS = 32, 256, 3
LIMITS, MEAN = (8, 256), 48


def asked() -> list[Request]:
    """Return the requests, each with a limit of its own."""
    rng = random.Random(0)
    limits = [min(LIMITS[1], LIMITS[0] + int(rng.expovariate(1 / MEAN))) for _ in range(REQUESTS)]
    prompts = [token_ids([rng.randrange(3, 48) for _ in range(rng.randint(5, 30))]) for _ in limits]
    pairs = zip(prompts, limits, strict=True)
    return [Request(str(n), prompt, SamplingParams(1.0, 1.0, None, limit), n) for n, (prompt, limit) in enumerate(pairs)]


async def together(engine: TorchEngine, requests: list[Request]) -> list[list[Chunk]]:
    """Return all responses to requests that were sent at the same time."""

    async def whole(request: Request) -> list[Chunk]:
        return [chunk async for chunk in engine.generate(request)]

    return list(await asyncio.gather(*map(whole, requests)))


def at_once(engine: TorchEngine, requests: list[Request]) -> list[list[Chunk]]:
    """Return all responses, batch after batch."""
    batches = (requests[first : first + ROWS] for first in range(0, len(requests), ROWS))
    return [response for batch in batches for response in asyncio.run(together(engine, batch))]


def main() -> None:
    """Print the ratio."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate_model(folder, ModelOptions("qwen3", "tiny", seed=3))
        shape = shape_from_config(json.loads((folder / "config.json").read_text()))
        engine = TorchEngine(folder, Bf16(), shape, context_length=512, max_concurrency=ROWS)
        engine.load_folder()
        requests = asked()
        ways = {"continuous": lambda: asyncio.run(together(engine, requests)), "batch at once": lambda: at_once(engine, requests)}
        rates: dict[str, list[float]] = {way: [] for way in ways}
        told: dict[str, list[list[int]]] = {}
        for _ in range(ROUNDS):
            for way, generate in ways.items():
                before = time.perf_counter()
                found = generate()
                seconds = time.perf_counter() - before
                told[way] = [[i for chunk in response for i in chunk.ids.tolist()] for response in found]
                rates[way].append(sum(map(len, told[way])) / seconds)
        assert told["continuous"] == told["batch at once"]
        best = {way: max(found) for way, found in rates.items()}
        for way, rate in best.items():
            print(f"{way:14} {rate:8.0f} tokens/s")
        print(f"continuous / at once {best['continuous'] / best['batch at once']:.2f}")


if __name__ == "__main__":
    main()
