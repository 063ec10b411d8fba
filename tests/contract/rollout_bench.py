"""The engines that the contract suite runs on, every one that the images hold, and what it needs of each."""

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

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

Factory = Callable[..., RolloutEngine]
ENGINES: dict[str, Factory] = {name: engine_class(name) for name in HELD["rollout"]}
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
FREE = SamplingParams(0.8, 1.0, None, 12)


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
    if not (tmp_path / "config.json").is_file():
        generate_model(tmp_path, ModelOptions(architecture, "tiny", seed=3))  # type: ignore[arg-type]
    shape = model_shape(json.loads((tmp_path / "config.json").read_text()))
    made = ENGINES[engine](tmp_path, FORMATS[fmt], shape, "cpu", **{"context_length": 64} | options)
    # Weights five times the usual spread, so that the distributions are far from uniform.
    return Bench(made, tmp_path, FORMATS[fmt], shape, served_tensors(tmp_path, FORMATS[fmt], shape, 5.0))


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
