"""One suite for every RolloutEngine."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Int4Group, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.spec.precision import Scope
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_fixtures.shape import model_shape
from lprl_workload.buckets import Digest, make_bucket, pack
from lprl_workload.data import Completion, GenerationRequest, NamedTensor, SamplingParams
from lprl_workload.episode import Span, token_ids
from lprl_workload.hf.folder import read_folder
from lprl_workload.hf.served import ServedModel
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.quant.scheme import quantize
from lprl_workload.quant.select import Selection
from lprl_workload.rollout.engine import RolloutEngine
from lprl_workload.rollout.engine_torch import TorchEngine

ENGINES = {"torch": TorchEngine}
FORMATS: dict[str, WeightFormat] = {
    "bf16": Bf16(),
    "fp8": Fp8Block(),
    "fp8-weight-only": Fp8Channel(activations="none"),
    "int4": Int4Group(group_size=32, scope=Scope.ALL_LINEAR),
}
SERVED = (
    ("qwen3", "bf16"),
    ("qwen3", "fp8"),
    ("qwen3", "fp8-weight-only"),
    ("qwen3-moe", "int4"),
    ("moonlight", "fp8"),
    ("deepseek-v3", "bf16"),
)
CASES = [pytest.param(engine, architecture, fmt, id=f"{engine}-{architecture}-{fmt}") for engine in ENGINES for architecture, fmt in SERVED]
FREE = SamplingParams(0.8, 1.0, None, 12)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@dataclass
class Bench:
    engine: RolloutEngine
    folder: Path
    fmt: WeightFormat
    shape: ModelShape
    tensors: list[NamedTensor]

    def push(self, version: int, tensors: list[NamedTensor] | None = None, sent: list[NamedTensor] | None = None) -> None:
        """Send `sent` while claiming the digest of `tensors`."""
        tensors = self.tensors if tensors is None else tensors
        digest = Digest()
        for item in tensors:
            digest.add(item.name, item.tensor)
        self.engine.begin_update(version)
        for bucket in pack(tensors if sent is None else sent, 1 << 16):
            self.engine.load_bucket(bucket)
            bucket.data.fill_(255)  # the channel may reuse the memory
        self.engine.end_update(version, digest.hexdigest())

    def logprobs(self, request: GenerationRequest, completion: Completion, temperature: float) -> torch.Tensor:
        """Full forward passes without a cache on a model of our own."""
        served = ServedModel(self.folder, self.fmt, self.shape, "cpu")
        served.load((item.name, item.tensor) for item in self.tensors)
        ids = torch.tensor([[*request.prompt_ids.tolist(), *completion.response_ids.tolist()]])
        logits = served.model(input_ids=ids, use_cache=False).logits[0, len(request.prompt_ids) - 1 : -1]
        return (logits / temperature).log_softmax(-1).gather(-1, torch.from_numpy(completion.response_ids).long()[:, None])[:, 0]


def told(done: list[Completion]) -> list[tuple[int, ...]]:
    return [tuple(completion.response_ids.tolist()) for completion in done]


def exactly(done: list[Completion]) -> list[tuple[bytes, bytes, str, tuple[Span, ...]]]:
    return [(c.response_ids.tobytes(), c.logprobs.tobytes(), c.finish, c.versions) for c in done]


def served_tensors(folder: Path, fmt: WeightFormat, shape: ModelShape, scale: float = 1.0) -> list[NamedTensor]:
    selection = Selection(fmt, shape)
    items = []
    for name, tensor in sorted(read_folder(folder)):
        tensor = (tensor.float() * scale).to(tensor.dtype)
        quantised = selection.selects(name, tuple(tensor.shape)) if not isinstance(fmt, Bf16) else False
        parts = quantize(name, tensor, fmt) if quantised else {name: tensor}
        items += [NamedTensor(part, value) for part, value in parts.items()]
    return items


def bench(tmp_path: Path, engine: str, architecture: str, fmt: str) -> Bench:
    generate_model(tmp_path, ModelOptions(architecture, "tiny", seed=3))  # type: ignore[arg-type]
    shape = model_shape(json.loads((tmp_path / "config.json").read_text()))
    made = ENGINES[engine](tmp_path, FORMATS[fmt], shape, "cpu", context_length=64)
    # Weights five times the usual spread, so that the distributions are far from uniform.
    return Bench(made, tmp_path, FORMATS[fmt], shape, served_tensors(tmp_path, FORMATS[fmt], shape, 5.0))


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Bench]:
    made = bench(tmp_path, "torch", "qwen3", "bf16")
    made.push(0)
    yield made
    made.engine.close()


def requests(count: int, group: int = 4) -> list[GenerationRequest]:
    rng = random.Random(5)
    prompts = [token_ids([rng.randrange(3, 48) for _ in range(rng.randint(1, 9))]) for _ in range(count)]
    return [GenerationRequest(prompt, rng.getrandbits(62)) for prompt in prompts for _ in range(group)]


@pytest.mark.parametrize(("engine", "architecture", "fmt"), CASES)
def test_logprobs_are_those_of_full_forward_passes(tmp_path: Path, engine: str, architecture: str, fmt: str) -> None:
    made = bench(tmp_path, engine, architecture, fmt)
    made.push(4)
    asked = requests(5, 3)
    done = made.engine.generate(asked, FREE)
    for request, completion in list(zip(asked, done, strict=True))[::2]:
        assert 1 <= len(completion.response_ids) == len(completion.logprobs) <= 12
        assert completion.versions == (Span(4, 0, len(completion.response_ids)),)
        assert completion.response_ids.dtype == np.int32 and completion.logprobs.dtype == np.float32
        want = made.logprobs(request, completion, 0.8)
        difference = (torch.tensor(completion.logprobs) - want).abs()
        # Another batch shape rounds differently in the last bit, which moves an FP8 activation to the next code now and then.
        assert difference.max() < (0.05 if fmt == "fp8" else 1e-3) and difference.median() < 1e-3
    assert len(set(told(done))) > 10


def test_greedy_follows_the_likeliest_token_and_ignores_the_seed(plain: Bench) -> None:
    request = requests(1, 1)[0]
    params = SamplingParams(0.0, 1.0, None, 6)
    one, two = plain.engine.generate([request, GenerationRequest(request.prompt_ids, 99)], params)
    assert told([one]) == told([two]) and one.finish == two.finish
    assert torch.allclose(torch.tensor(one.logprobs), plain.logprobs(request, one, 1.0), atol=2e-4)


def test_a_response_depends_on_its_request_not_on_its_neighbours(plain: Bench) -> None:
    asked = requests(12)
    want = dict(zip((r.key for r in asked), told(plain.engine.generate(asked, FREE)), strict=True))
    mixed = asked[:]
    random.Random(1).shuffle(mixed)
    assert [want[r.key] for r in mixed] == told(plain.engine.generate(mixed, FREE))
    few = asked[5:9]
    assert [want[r.key] for r in few] == told(plain.engine.generate(few, FREE))
    small = ENGINES["torch"](plain.folder, plain.fmt, plain.shape, "cpu", context_length=64, max_concurrency=3)
    again = Bench(small, plain.folder, plain.fmt, plain.shape, plain.tensors)
    again.push(0)
    assert told(small.generate(asked, FREE)) == [want[r.key] for r in asked]


def test_ends_at_end_tokens_stop_ids_stop_strings_and_limits(plain: Bench) -> None:
    asked = requests(20)
    done = plain.engine.generate(asked, FREE)
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
    by_id = plain.engine.generate(asked, SamplingParams(0.8, 1.0, None, 12, (), (token,)))
    by_string = plain.engine.generate(asked, SamplingParams(0.8, 1.0, None, 12, (string,)))
    assert exactly(by_id) == exactly(by_string)
    for before, after in zip(done, by_id, strict=True):
        ids = before.response_ids.tolist()
        assert after.response_ids.tolist() == ids[: ids.index(token) + 1 if token in ids else len(ids)]


def test_context_limits_the_response_and_refuses_longer_prompts(plain: Bench) -> None:
    never = SamplingParams(1.0, 1.0, None, 1000)
    (completion,) = plain.engine.generate([GenerationRequest(tuple([7] * 60), 1)], never)
    assert len(completion.response_ids) <= 4
    for prompt in ((), tuple([7] * 64)):
        with pytest.raises(UserError, match="leaves no room in a context of 64"):
            plain.engine.generate([GenerationRequest(prompt, 1)], never)
    assert plain.engine.generate([], never) == []


def test_update_changes_the_policy_and_the_version(plain: Bench) -> None:
    asked = requests(6)
    before = plain.engine.generate(asked, FREE)
    plain.push(3, served_tensors(plain.folder, plain.fmt, plain.shape, 7.0))
    after = plain.engine.generate(asked, FREE)
    assert plain.engine.weight_version == 3 == after[0].versions[0].version
    assert told(before) != told(after)
    plain.push(4)
    again = plain.engine.generate(asked, FREE)
    assert [row[:2] for row in exactly(again)] == [row[:2] for row in exactly(before)]


def test_wrong_updates_are_refused_and_a_whole_one_heals(plain: Bench) -> None:
    asked = requests(2)
    want = plain.engine.generate(asked, FREE)
    for version in (0, -1):
        with pytest.raises(WeightMismatchError, match="refused"):
            plain.engine.begin_update(version)
    assert exactly(plain.engine.generate(asked, FREE)) == exactly(want)
    changed = [NamedTensor(plain.tensors[0].name, plain.tensors[0].tensor + 1), *plain.tensors[1:]]
    for sent, words in ((changed, "differs from the sender's"), (plain.tensors[1:], "1 tensors did not arrive"), ([], "did not arrive")):
        with pytest.raises(WeightMismatchError, match=words):
            plain.push(1, sent=sent)
        assert not plain.engine.healthy()
        with pytest.raises(WeightMismatchError):
            plain.engine.generate(asked, FREE)
        assert plain.engine.weight_version == 0
    plain.push(1)
    assert plain.engine.healthy() and plain.engine.weight_version == 1
    assert told(plain.engine.generate(asked, FREE)) == told(want)


def test_states_in_which_it_does_not_serve(tmp_path: Path) -> None:
    made = bench(tmp_path, "torch", "qwen3", "bf16")
    asked = requests(1)
    assert made.engine.weight_version == -1
    with pytest.raises(RuntimeError, match="before the first weights"):
        made.engine.generate(asked, FREE)
    with pytest.raises(RuntimeError, match="outside begin_update"):
        made.engine.load_bucket(make_bucket(made.tensors[:1]))
    made.engine.begin_update(1)
    with pytest.raises(RuntimeError, match="between begin_update"):
        made.engine.generate(asked, FREE)
    with pytest.raises(WeightMismatchError, match=r"end_update\(2\) after begin_update\(1\)"):
        made.engine.end_update(2, "")
    made.engine.sleep()
    made.push(1)
    with pytest.raises(RuntimeError, match="sleeps"):
        made.engine.generate(asked, FREE)
    made.engine.wake()
    assert len(made.engine.generate(asked, FREE)) == len(asked)
    made.engine.close()
    assert not made.engine.healthy()
    with pytest.raises(RuntimeError, match="closed"):
        made.engine.generate(asked, FREE)


def test_loads_its_own_folder_as_version_zero(tmp_path: Path) -> None:
    made = bench(tmp_path, "torch", "qwen3-moe", "bf16")
    made.engine.load_folder()  # type: ignore[attr-defined]
    assert made.engine.weight_version == 0 and made.engine.generate(requests(2), FREE)
