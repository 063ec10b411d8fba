"""Whole responses out of an engine's streams."""

import asyncio
from collections.abc import Sequence
from itertools import count

import numpy as np

from lprl_workload.data import Completion, GenerationRequest, SamplingParams
from lprl_workload.episode import Span
from lprl_workload.rollout.engine import RolloutEngine
from lprl_workload.rollout.requests import Chunk, Request

_calls = count()
"""Open requests of one engine have different ids, from whichever thread they come."""


async def complete(
    engine: RolloutEngine, requests: Sequence[GenerationRequest], params: SamplingParams, still: bool = True
) -> list[Completion]:
    """Return one completion per request, in order. Raises what `generate` raises; the other requests are given up then.

    `still`: the engine stands still until it has all of them (if it can, and draws by seeds), so that one whose results depend on the
    batch gives the same ones again. Not where others pause it as well.
    """
    call = next(_calls)
    asked = [Request(f"{call}/{n}", r.prompt_ids, params, r.seed) for n, r in enumerate(requests)]
    still = still and {"in-place-pause", "seed-exact"} <= engine.can and (await engine.state()).ready
    if still:
        await engine.pause("in-place")
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_whole(engine, request)) for request in asked]
            if still:
                await asyncio.sleep(0)  # every task has handed its request over
                await engine.resume()
    except* Exception as failed:
        raise first_of(failed) from None
    finally:
        if still:
            await engine.resume()
    return [completion_of(task.result()) for task in tasks]


async def _whole(engine: RolloutEngine, request: Request) -> list[Chunk]:
    return [chunk async for chunk in engine.generate(request)]


def first_of(failed: BaseExceptionGroup) -> BaseException:
    """Return the first error of a group of tasks."""
    error = failed.exceptions[0]
    return first_of(error) if isinstance(error, BaseExceptionGroup) else error


def completion_of(chunks: Sequence[Chunk]) -> Completion:
    """Return the response that chunks make up; the last one says how it ended."""
    finish = chunks[-1].finish
    if finish is None:
        raise ValueError(f"the response did not end: {finish}")
    ids, logprobs = (np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("ids", "logprobs"))
    return Completion(ids, logprobs, finish, spans_of(chunks))


def spans_of(chunks: Sequence[Chunk]) -> tuple[Span, ...]:
    """Return which weights drew which tokens of the response that chunks make up."""
    spans: list[Span] = []
    place = 0
    for chunk in chunks:
        first = place
        place += len(chunk.ids)
        if spans and spans[-1].version == chunk.version:
            spans[-1] = Span(chunk.version, spans[-1].first, place)
        elif place > first:
            spans.append(Span(chunk.version, first, place))
    return tuple(spans)
