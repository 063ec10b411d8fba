"""SGLang on a GPU through the product: what it serves is our own arithmetic, a second load is a first one, damage is refused, sleep frees.

Needs SGLang. One server for each model and format, which the tests of it share: a start takes half a minute.
"""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.gpu.shapes import format_of, served, write_shape

from lprl_api.model.formats import WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_workload.data import GenerationRequest, NamedTensor, SamplingParams
from lprl_workload.episode import token_ids
from lprl_workload.hf.served import ServedModel
from lprl_workload.io.dtypes import DTYPE_NAMES
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.rollout.completions import complete
from lprl_workload.rollout.sglang.arguments import ServerOptions
from lprl_workload.rollout.sglang.engine import SglangEngine
from lprl_workload.sync.buckets import pack
from lprl_workload.sync.checks import Check
from lprl_workload.sync.checksum import checksum

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]
CASES = [("small", "bf16"), ("small", "fp8"), ("small-moe", "bf16"), ("small-moe", "fp8"), ("small-moe", "int4")]
SPREAD = 0.05
BOUND = {
    ("small", "bf16"): 0.06, ("small", "fp8"): 0.4,
    ("small-moe", "bf16"): 0.16, ("small-moe", "fp8"): 0.7, ("small-moe", "int4"): 0.14,
}  # fmt: skip
"""Of the mean difference of a log-probability, twice what was measured: activations are rounded by the kernels (FP8), and a token whose
router is undecided goes to another expert. Other weights make it 2 and more."""
AGAIN = {"int4": 0.06}
"""Of the mean difference between two answers of one engine: sums of Marlin's INT4 products depend on the order its blocks end in."""
FRACTION = 0.1


@dataclass
class Site:
    """A running engine and the models that are pushed into it."""

    engine: SglangEngine
    folder: Path
    config: dict[str, Any]
    shape: ModelShape
    fmt: WeightFormat
    name: str
    kind: str
    free: int
    """Bytes of the GPU that nobody had when the engine started: what its share is a share of."""

    def tensors(self, seed: int) -> list[NamedTensor]:
        return list(served(self.config, self.fmt, self.shape, "cuda:0", seed, SPREAD))

    def push(self, tensors: list[NamedTensor], sent: list[NamedTensor] | None = None, strong: bool = True) -> None:
        version = max(self.engine.weight_version, 0) + 1
        self.engine.begin_update(version, strong)
        for bucket in pack(tensors if sent is None else sent, 16 << 20):
            self.engine.load_bucket(bucket)
            bucket.data.fill_(255)
        specs = [(item.name, DTYPE_NAMES[item.tensor.dtype], tuple(item.tensor.shape)) for item in tensors]
        sums = {item.name: int(checksum(item.tensor)) for item in tensors} if strong else None
        self.engine.end_update(version, Check.of(specs, sums))

    def scores(self, rows: list[list[int]]) -> torch.Tensor:
        """What the engine finds for tokens behind the first, [rows, tokens - 1]."""
        return torch.tensor([self.engine.probe(row) for row in rows])

    def expected(self, tensors: list[NamedTensor], rows: list[list[int]]) -> torch.Tensor:
        """What our own arithmetic finds, in BF16 on the same GPU."""
        model = ServedModel(self.folder, self.fmt, self.shape, "cuda:0")
        model.load((item.name, item.tensor) for item in tensors)
        return torch.tensor([model.score(row) for row in rows])

    def texts(self, count: int = 4, tokens: int = 64) -> list[list[int]]:
        rng = random.Random(7)
        return [[rng.randrange(self.shape.vocab) for _ in range(tokens)] for _ in range(count)]


@pytest.fixture(scope="module", params=CASES, ids=["-".join(case) for case in CASES])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    name, kind = request.param
    folder = tmp_path_factory.mktemp("served")
    config, shape = write_shape(folder, name)
    fmt = format_of(kind, shape)
    options, free = ServerOptions(graph_sizes=(4, 16)), torch.cuda.mem_get_info()[0]
    engine = SglangEngine(folder, fmt, shape, "cuda:0", context_length=256, max_concurrency=16, memory_fraction=FRACTION, server=options)
    yield Site(engine, folder, config, shape, fmt, name, kind, free)
    engine.close()


def test_log_probabilities_are_those_of_our_own_arithmetic(site: Site) -> None:
    tensors = site.tensors(1)
    site.push(tensors)
    rows = site.texts()
    found, again, want = site.scores(rows), site.scores(rows), site.expected(tensors, rows)
    difference, floor = (found - want).abs(), (found - again).abs()
    print(f"\n{site.kind}: mean {difference.mean():.5f} max {difference.max():.4f}; the engine twice: mean {floor.mean():.6f}")
    assert (found - site.expected(site.tensors(2), rows)).abs().mean() > 3 * difference.mean(), "nothing to tell apart"
    assert difference.mean() < BOUND[site.name, site.kind]


def test_drawn_tokens_have_the_log_probabilities_of_the_same_tokens_scored(site: Site) -> None:
    tensors = site.tensors(1)
    site.push(tensors)
    asked = [GenerationRequest(token_ids(row[:9]), n) for n, row in enumerate(site.texts(12))]
    done = asyncio.run(complete(site.engine, asked, SamplingParams(0.8, 1.0, None, 24)))
    assert {c.versions[0].version for c in done} == {site.engine.weight_version}
    difference = []
    model = ServedModel(site.folder, site.fmt, site.shape, "cuda:0")
    model.load((item.name, item.tensor) for item in tensors)
    for request, completion in zip(asked, done, strict=True):
        assert 1 <= len(completion.response_ids) <= 24
        ids = torch.tensor([[*request.prompt_ids.tolist(), *completion.response_ids.tolist()]], device="cuda:0")
        with torch.no_grad():
            logits = model.model(input_ids=ids, use_cache=False).logits[0, len(request.prompt_ids) - 1 : -1]
        want = (logits.float() / 0.8).log_softmax(-1).gather(-1, ids[0, len(request.prompt_ids) :, None])[:, 0].cpu()
        difference.append((torch.from_numpy(completion.logprobs) - want).abs())
    mean = float(torch.cat(difference).mean())
    print(f"\n{site.kind}: {sum(map(len, difference))} drawn tokens, mean difference {mean:.5f}")
    assert mean < BOUND[site.name, site.kind]


def test_a_second_load_is_a_first_one_over_five_alternating_pushes(site: Site) -> None:
    one, two, rows = site.tensors(1), site.tensors(2), site.texts(2)
    first: dict[int, tuple[Any, torch.Tensor]] = {}
    for n in range(5):
        site.push((one, two)[n % 2], strong=n < 3)
        sums, scores = site.engine._control.checksums(), site.scores(rows)
        known = first.setdefault(n % 2, (sums, scores))
        assert sums == known[0]
        assert (scores - known[1]).abs().mean() <= AGAIN.get(site.kind, 0.0)
    assert first[0][0] != first[1][0] and (first[0][1] - first[1][1]).abs().max() > 0.5


def test_damaged_weights_are_refused_and_whole_ones_heal(site: Site) -> None:
    tensors = site.tensors(3)
    other = {item.name: item for item in site.tensors(4)}
    scale = next((n for n, item in enumerate(tensors) if "scale" in item.name), len(tensors) // 2)
    changed = [other[item.name] if n == scale else item for n, item in enumerate(tensors)]
    for sent in (changed, tensors[:-1]):
        with pytest.raises(WeightMismatchError):
            site.push(tensors, sent=sent)
        assert not site.engine.healthy()
    site.push(tensors)
    assert site.engine.healthy()


def test_what_sleeps_is_free_and_comes_back_with_a_push(site: Site) -> None:
    tensors, rows = site.tensors(1), site.texts(2)
    site.push(tensors)
    want, before = site.scores(rows), torch.cuda.mem_get_info()[0]
    asyncio.run(site.engine.sleep(frozenset({"kv", "weights"})))
    freed = torch.cuda.mem_get_info()[0] - before
    asyncio.run(site.engine.wake(frozenset({"weights"})))
    site.push(tensors)
    asyncio.run(site.engine.wake(frozenset({"kv"})))
    print(f"\n{site.kind}: {freed / 2**30:.2f} GiB freed")
    assert freed > 0.7 * FRACTION * site.free
    assert (site.scores(rows) - want).abs().mean() <= AGAIN.get(site.kind, 0.0)
