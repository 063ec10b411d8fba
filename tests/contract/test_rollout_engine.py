"""Core of the RolloutEngine contract: every engine of rollout_bench.ENGINES does this."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.contract.rollout_bench import (
    CASES,
    ENGINES,
    FREE,
    Bench,
    bench,
    check_of,
    drawn,
    request_of,
    requests,
    served_tensors,
    told,
)

from lprl_api.errors import UserError
from lprl_workload.data import Completion, GenerationRequest, NamedTensor, SamplingParams
from lprl_workload.episode import Span, token_ids
from lprl_workload.launch.local import copy_held
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.rollout.requests import Request
from lprl_workload.sync.buckets import make_bucket
from lprl_workload.sync.probe import probe_ids

KV = frozenset({"kv"})
MISSING = r"\d+ tensors did not arrive|\d+ tensors of \d+ bytes arrived, \d+ of \d+ bytes were sent"
LONG = SamplingParams(1.0, 1.0, None, 48)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=ENGINES)
def plain(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = bench(tmp_path, request.param)
    made.push(0)
    yield made
    made.done()


@pytest.mark.parametrize(("engine", "architecture", "fmt"), CASES)
def test_logprobs_are_those_of_full_forward_passes(tmp_path: Path, engine: str, architecture: str, fmt: str) -> None:
    made = bench(tmp_path, engine, architecture, fmt)
    made.push(4)
    asked = requests(5, 3)
    done = drawn(made.engine, asked, FREE)
    for request, completion in list(zip(asked, done, strict=True))[::2]:
        assert 1 <= len(completion.response_ids) == len(completion.logprobs) <= 12
        assert completion.versions == (Span(4, 0, len(completion.response_ids)),)
        assert completion.response_ids.dtype == np.int32 and completion.logprobs.dtype == np.float32
        want = made.logprobs(request, completion, 0.8)
        difference = (torch.tensor(completion.logprobs) - want).abs()
        # Another batch shape rounds differently in the last bit, which moves an FP8 activation to the next code now and then.
        assert difference.max() < (0.05 if fmt == "fp8" else 1e-3) and difference.median() < 1e-3
    assert len(set(told(done))) > 10
    made.done()


def test_greedy_follows_the_likeliest_token_and_ignores_the_seed(plain: Bench) -> None:
    request = requests(1, 1)[0]
    params = SamplingParams(0.0, 1.0, None, 6)
    one, two = drawn(plain.engine, [request, GenerationRequest(request.prompt_ids, 99)], params)
    assert told([one]) == told([two]) and one.finish == two.finish
    assert torch.allclose(torch.tensor(one.logprobs), plain.logprobs(request, one, 1.0), atol=2e-4)


def test_ends_at_end_tokens_stop_ids_stop_strings_and_limits(plain: Bench) -> None:
    asked = requests(20)
    done = drawn(plain.engine, asked, plain.free)
    assert {c.finish for c in done} == {"stop", "length"}
    for completion in done:
        ends = completion.response_ids[-1] == 1
        assert completion.finish == ("stop" if ends else "length")
        assert 1 not in completion.response_ids[:-1]
        assert ends or len(completion.response_ids) == 12
    # A digit: no special token's text holds one.
    token = max(range(6, 16), key=lambda t: sum(t in c.response_ids for c in done))
    text = json.loads((plain.folder / "tokenizer.json").read_text())["model"]["vocab"]
    string = next(s for s, number in text.items() if number == token)
    by_id = drawn(plain.engine, asked, replace(plain.free, stop_token_ids=(token,)))
    by_string = drawn(plain.engine, asked, replace(plain.free, stop=(string,)))
    assert plain.same(by_id, by_string)
    for before, after in zip(done, by_id, strict=True):
        ids = before.response_ids.tolist()
        assert after.response_ids.tolist() == ids[: ids.index(token) + 1 if token in ids else len(ids)]


def test_context_limits_the_response_and_refuses_longer_prompts(plain: Bench) -> None:
    never = SamplingParams(1.0, 1.0, None, 1000)
    (completion,) = drawn(plain.engine, [GenerationRequest(tuple([7] * 60), 1)], never)
    assert len(completion.response_ids) <= 4
    for prompt in ((), tuple([7] * 64)):
        with pytest.raises(UserError, match="leaves no room in a context of 64"):
            drawn(plain.engine, [GenerationRequest(prompt, 1)], never)
    assert drawn(plain.engine, [], never) == []


def test_update_changes_the_policy_and_the_version(plain: Bench) -> None:
    asked = requests(6)
    before = drawn(plain.engine, asked, plain.free)
    plain.push(3, served_tensors(plain.folder, plain.fmt, plain.shape, 7.0))
    after = drawn(plain.engine, asked, plain.free)
    assert plain.engine.weight_version == 3 == after[0].versions[0].version
    assert told(before) != told(after)
    plain.push(4)
    again = drawn(plain.engine, asked, plain.free)
    assert plain.same(again, before, served=False)


def test_wrong_updates_are_refused_and_a_whole_one_heals(plain: Bench) -> None:
    asked = requests(2)
    want = drawn(plain.engine, asked, plain.free)
    for version in (0, -1):
        with pytest.raises(WeightMismatchError, match="refused"):
            plain.engine.begin_update(version)
    assert plain.same(drawn(plain.engine, asked, plain.free), want)
    changed = [NamedTensor(plain.tensors[0].name, plain.tensors[0].tensor + 1), *plain.tensors[1:]]
    for sent, words in ((changed, "differ from the sender's"), (plain.tensors[1:], MISSING), ([], MISSING)):
        with pytest.raises(WeightMismatchError, match=words):
            plain.push(1, sent=sent)
        assert not plain.engine.healthy()
        with pytest.raises(WeightMismatchError):
            drawn(plain.engine, asked, plain.free)
        assert plain.engine.weight_version == 0
    plain.push(1)
    assert plain.engine.healthy() and plain.engine.weight_version == 1
    assert told(drawn(plain.engine, asked, plain.free)) == told(want)


def test_an_update_given_up_is_not_served_and_a_whole_one_heals(plain: Bench) -> None:
    asked = requests(2)
    plain.engine.begin_update(1)
    plain.engine.load_bucket(make_bucket(plain.tensors[:1]))
    plain.engine.abort_update("the trainer was lost")
    with pytest.raises(WeightMismatchError, match="update to weight version 1 was given up: the trainer was lost"):
        drawn(plain.engine, asked, plain.free)
    assert not plain.engine.healthy() and plain.engine.weight_version == 0
    plain.push(2)
    assert len(drawn(plain.engine, asked, plain.free)) == len(asked)


@pytest.mark.parametrize(("engine", "architecture", "fmt"), CASES)
def test_weights_copied_from_another_engine_are_served_alike(tmp_path: Path, engine: str, architecture: str, fmt: str) -> None:
    made = bench(tmp_path, engine, architecture, fmt)
    made.push(7)
    other = made.another()
    other.begin_update(7)
    with pytest.raises(WeightMismatchError, match="did not hand over"):
        other.end_held(7)
    assert not other.healthy() and other.weight_version == -1
    copy_held(made.engine, other, 7)
    asked = requests(3)
    assert other.weight_version == 7 and other.healthy()
    assert made.same(drawn(other, asked, made.free), drawn(made.engine, asked, made.free))
    made.done()


def test_the_probe_is_what_full_forward_passes_find(plain: Bench) -> None:
    ids = probe_ids(48)
    whole = Completion(token_ids(ids[1:]), np.zeros(len(ids) - 1, np.float32), "length", (Span(0, 0, len(ids) - 1),))
    want = plain.logprobs(GenerationRequest(token_ids(ids[:1]), 0), whole, 1.0)
    assert torch.allclose(torch.tensor(plain.engine.probe(ids)), want, atol=1e-4)
    asyncio.run(plain.engine.sleep(KV))
    assert len(plain.engine.probe(ids)) == len(ids) - 1
    plain.engine.begin_update(1)
    with pytest.raises(RuntimeError, match="between begin_update"):
        plain.engine.probe(ids)


@pytest.mark.parametrize("engine", ENGINES)
def test_states_in_which_it_does_not_serve(tmp_path: Path, engine: str) -> None:
    made = bench(tmp_path, engine)
    asked = requests(1)
    assert made.engine.weight_version == -1
    with pytest.raises(RuntimeError, match="before the first weights"):
        drawn(made.engine, asked, made.free)
    with pytest.raises(RuntimeError, match="outside begin_update"):
        made.engine.load_bucket(make_bucket(made.tensors[:1]))
    made.engine.begin_update(1)
    with pytest.raises(RuntimeError, match="between begin_update"):
        drawn(made.engine, asked, made.free)
    with pytest.raises(WeightMismatchError, match=r"end_update\(2\) after begin_update\(1\)"):
        made.engine.end_update(2, check_of([]))
    asyncio.run(made.engine.sleep(KV))
    made.push(1)
    with pytest.raises(RuntimeError, match="sleeps"):
        drawn(made.engine, asked, made.free)
    asyncio.run(made.engine.wake(KV))
    assert len(drawn(made.engine, asked, made.free)) == len(asked)
    made.engine.close()
    assert not made.engine.healthy()
    with pytest.raises(RuntimeError, match="closed"):
        drawn(made.engine, asked, made.free)


@pytest.mark.parametrize("engine", [name for name in ENGINES if name == "torch"])
def test_loads_its_own_folder_as_version_zero(tmp_path: Path, engine: str) -> None:
    made = bench(tmp_path, engine, "qwen3-moe")
    made.engine.load_folder()  # type: ignore[attr-defined]
    assert made.engine.weight_version == 0 and drawn(made.engine, requests(2), FREE)


def test_a_stream_ends_with_its_finish_and_holds_what_a_whole_response_holds(plain: Bench) -> None:
    (one,) = requests(1, 1)
    (want,) = drawn(plain.engine, [one], plain.free)

    async def read() -> tuple[list[int], list[str | None]]:
        chunks = [chunk async for chunk in plain.engine.generate(request_of(one, plain.free, "x"))]
        assert all(len(chunk.ids) == len(chunk.logprobs) and chunk.version == 0 for chunk in chunks)
        return [int(i) for chunk in chunks for i in chunk.ids], [chunk.finish for chunk in chunks]

    ids, ends = asyncio.run(read())
    assert ids == want.response_ids.tolist() and ends == [None] * (len(ends) - 1) + [want.finish]


def test_abort_ends_open_streams_with_what_they_drew_and_spares_the_others(plain: Bench) -> None:
    async def go() -> None:
        streams = [plain.engine.generate(request_of(r, LONG, str(n))) for n, r in enumerate(requests(3, 1))]
        await plain.engine.pause("retract")
        reading = [asyncio.ensure_future(anext(stream)) for stream in streams]
        await asyncio.sleep(0)
        assert not (await plain.engine.state()).ready
        await plain.engine.abort(["0", "nobody"])
        assert (await reading[0]).finish == "abort"
        await plain.engine.resume()
        await plain.engine.abort()
        for stream, first in zip(streams[1:], reading[1:], strict=True):
            chunks = [await first, *[chunk async for chunk in stream]]
            assert chunks[-1].finish in ("abort", "stop", "length") and all(chunk.finish is None for chunk in chunks[:-1])
        found = await plain.engine.state()
        assert found.alive and found.ready and (found.running, found.waiting, found.version) == (0, 0, 0)

    asyncio.run(go())


def test_a_response_goes_on_from_what_was_drawn_before(plain: Bench) -> None:
    # The random stream, the limit and the stop rule go on behind the given tokens; so the same response comes of it.
    for one in requests(4, 1):
        (want,) = drawn(plain.engine, [one], plain.free)
        cut = len(want.response_ids) // 2
        ids = (*one.prompt_ids.tolist(), *want.response_ids[:cut].tolist())

        async def read(ids: tuple[int, ...] = ids, seed: int = one.seed, cut: int = cut) -> list[int]:
            asked = request_of(GenerationRequest(token_ids(ids), seed), plain.free, "x")
            asked = Request(asked.id, asked.prompt, asked.sampling, asked.seed, drawn=cut)
            return [int(i) async for chunk in plain.engine.generate(asked) for i in chunk.ids]

        assert asyncio.run(read()) == want.response_ids[cut:].tolist()


def test_two_open_requests_of_one_id_are_refused_and_a_closed_stream_is_given_up(plain: Bench) -> None:
    async def go() -> None:
        await plain.engine.pause("retract")
        (one,) = requests(1, 1)
        first = plain.engine.generate(request_of(one, LONG, "x"))
        reading = asyncio.ensure_future(anext(first))
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="request x"):
            await anext(plain.engine.generate(request_of(one, LONG, "x")))
        reading.cancel()
        await asyncio.wait([reading])
        assert (await plain.engine.state()).waiting == 0
        await plain.engine.resume()

    asyncio.run(go())


def test_weights_that_slept_are_pushed_again_before_anything_is_served(plain: Bench) -> None:
    asked = requests(2)
    want = drawn(plain.engine, asked, plain.free)
    both = frozenset({"weights", "kv"})
    asyncio.run(plain.engine.sleep(both))
    with pytest.raises(RuntimeError, match="weights sleep"):
        plain.engine.begin_update(1)
    asyncio.run(plain.engine.wake(frozenset({"weights"})))
    assert plain.engine.weight_version == -1
    plain.push(1)
    with pytest.raises(RuntimeError, match="sleeps"):  # the order of a step: weights up, push, cache up
        drawn(plain.engine, asked, plain.free)
    asyncio.run(plain.engine.wake(KV))
    assert told(drawn(plain.engine, asked, plain.free)) == told(want)
