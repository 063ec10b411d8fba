"""The engines that the contract suite runs on, every one that the images hold, and what it needs of each.

What runs beside tests in this process is made anew for each. An engine that is a server takes half a minute to start, so its tests share
one for each model and format: before each it forgets its weights (tests/backends/ runs the suite on it).
"""

import asyncio
import json
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.contract.shared_servers import SharedServers

from lprl_api.catalog.images import HELD
from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Int4Group, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.spec.precision import Scope
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_fixtures.shape import model_shape
from lprl_workload.data import Completion, GenerationRequest, NamedTensor, SamplingParams
from lprl_workload.episode import Span, token_ids
from lprl_workload.hf.folder import read_folder
from lprl_workload.hf.served import ServedModel
from lprl_workload.io.dtypes import DTYPE_NAMES
from lprl_workload.launch.backends import engine_class
from lprl_workload.quant.scheme import quantize
from lprl_workload.quant.select import Selection
from lprl_workload.rollout.completions import complete
from lprl_workload.rollout.engine import RolloutEngine
from lprl_workload.rollout.requests import Request
from lprl_workload.sync.buckets import pack
from lprl_workload.sync.checks import Check
from lprl_workload.sync.checksum import checksum

SHARED: dict[str, SharedServers] = {"sglang": SharedServers()}
"""Engines whose start costs too much to have one for each test."""
Factory = Callable[..., RolloutEngine]
ENV_ENGINES = "LPRL_CONTRACT_ENGINES"
"""Engines that the suite runs on, by comma; unset: those of the images."""
NAMES = tuple(filter(None, os.environ.get(ENV_ENGINES, "").split(","))) or HELD["rollout"]
ENGINES: dict[str, Factory] = {name: engine_class(name) for name in NAMES}
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
SERVED_BY = {
    "torch": SERVED,
    "sglang": (
        ("qwen3", "bf16"),
        ("qwen3", "fp8"),
        ("qwen3-moe", "bf16"),
        ("qwen3-moe", "int4"),
        ("moonlight", "fp8"),
        ("deepseek-v3", "bf16"),
    ),
}
"""(architecture, format) of each engine's tests."""
CASES = [(engine, architecture, fmt) for engine in ENGINES for architecture, fmt in SERVED_BY[engine]]
DAMAGED = [case for case in CASES if case[1:] in (("qwen3-moe", "int4"), ("moonlight", "fp8"))]
FREE = SamplingParams(0.8, 1.0, None, 12)
GREEDY = SamplingParams(0.0, 1.0, None, 12)


def check_of(tensors: list[NamedTensor]) -> Check:
    specs = [(item.name, DTYPE_NAMES[item.tensor.dtype], tuple(item.tensor.shape)) for item in tensors]
    return Check.of(specs, {item.name: int(checksum(item.tensor)) for item in tensors})


@dataclass
class Bench:
    engine: RolloutEngine
    folder: Path
    fmt: WeightFormat
    shape: ModelShape
    tensors: list[NamedTensor]
    name: str
    options: dict[str, int]
    others: list[RolloutEngine] = field(default_factory=list)

    @property
    def free(self) -> SamplingParams:
        """Sampling whose responses are the same again: greedy where requests have no random streams."""
        return FREE if "seed-exact" in self.engine.can else GREEDY

    def same(self, one: list[Completion], two: list[Completion], served: bool = True) -> bool:
        """Whether responses are the same, to the bit where the engine says so; `served`: by the same weight versions, too."""
        if "batch-invariant" in self.engine.can or "seed-exact" in self.engine.can:
            return [row[: 4 if served else 3] for row in exactly(one)] == [row[: 4 if served else 3] for row in exactly(two)]
        close = all(
            np.allclose(a.logprobs, b.logprobs, atol=1e-4) for a, b in zip(one, two, strict=True) if len(a.logprobs) == len(b.logprobs)
        )
        alike = [(told([c]), c.finish, c.versions if served else ()) for c in one] == [
            (told([c]), c.finish, c.versions if served else ()) for c in two
        ]
        return close and alike

    def another(self) -> RolloutEngine:
        """One more engine of the kind; `done` ends it, too."""
        found = make_engine(self.name, self.folder, self.fmt, self.shape, self.options, 1)
        self.others.append(found)
        return found

    def done(self) -> None:
        """The test is over."""
        for engine in (self.engine, *self.others):
            if self.name not in SHARED:
                engine.close()

    def push(self, version: int, tensors: list[NamedTensor] | None = None, sent: list[NamedTensor] | None = None) -> None:
        """Send `sent` while claiming that it is `tensors`."""
        tensors = self.tensors if tensors is None else tensors
        self.engine.begin_update(version, strong=True)
        for bucket in pack(tensors if sent is None else sent, 1 << 16):
            self.engine.load_bucket(bucket)
            bucket.data.fill_(255)  # the channel may reuse the memory
        self.engine.end_update(version, check_of(tensors))

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


def bench(tmp_path: Path, engine: str, architecture: str = "qwen3", fmt: str = "bf16", **options: int) -> Bench:
    """Return an engine of a small model, which waits for its first push."""
    folder = SHARED[engine].folder(architecture) if engine in SHARED else tmp_path
    if not (folder / "config.json").is_file():
        generate_model(folder, ModelOptions(architecture, "tiny", seed=3))  # type: ignore[arg-type]
    shape = model_shape(json.loads((folder / "config.json").read_text()))
    made = make_engine(engine, folder, FORMATS[fmt], shape, options, 0)
    # Weights five times the usual spread, so that the distributions are far from uniform.
    return Bench(made, folder, FORMATS[fmt], shape, served_tensors(folder, FORMATS[fmt], shape, 5.0), engine, options)


def make_engine(engine: str, folder: Path, fmt: WeightFormat, shape: ModelShape, options: dict[str, int], number: int) -> RolloutEngine:
    """Return an engine without weights; `number` tells those of one test apart."""
    more: dict[str, Any] = {"context_length": 64} | options

    def start(context: int) -> RolloutEngine:
        return ENGINES[engine](folder, fmt, shape, "cpu", **more | {"context_length": context})

    context = more.pop("context_length")
    if engine not in SHARED:
        return start(context)
    return SHARED[engine].engine((str(folder), repr(fmt), *sorted(more.items())), folder, context, number, start)


def drawn(engine: RolloutEngine, asked: Sequence[GenerationRequest], params: SamplingParams) -> list[Completion]:
    """Whole responses, in order."""
    return asyncio.run(complete(engine, asked, params))


def requests(count: int, group: int = 4) -> list[GenerationRequest]:
    rng = random.Random(5)
    prompts = [token_ids([rng.randrange(3, 48) for _ in range(rng.randint(1, 9))]) for _ in range(count)]
    return [GenerationRequest(prompt, rng.getrandbits(62)) for prompt in prompts for _ in range(group)]


def request_of(asked: GenerationRequest, params: SamplingParams, name: str) -> Request:
    """The same as a stream's request."""
    return Request(name, asked.prompt_ids, params, asked.seed)
