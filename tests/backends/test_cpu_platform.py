"""An unmodified SGLang on a CPU computes what our own arithmetic computes of the same folder, loaded by its own loaders.

With test_second_load.py and test_rollout_contract.py, where weights are pushed, every architecture and format it claims there is compared:
what is pushed there as well (DeepSeek-V3 in BF16 and INT4, Moonlight, Qwen3-MoE in BF16) starts no server here.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.backends.cpu_server import CpuServer, cpu_server

from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat, described
from lprl_api.spec.precision import Scope
from lprl_fixtures.architectures import Architecture
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_fixtures.shape import model_shape
from lprl_workload.convert.cli import convert_all_command
from lprl_workload.folder.files import SINGLE_FILE
from lprl_workload.hf.folder import read_folder
from lprl_workload.hf.served import ServedModel

INT4 = Int4Group(group_size=32, scope=Scope.ALL_LINEAR)
CLAIMED: tuple[tuple[Architecture, WeightFormat], ...] = (
    ("qwen3", Bf16()),
    ("qwen3", Fp8Block()),
    ("qwen3", Fp8Block(activations="none")),
    ("qwen3", INT4),
    ("qwen3-moe", Fp8Block()),
    ("qwen3-moe", Int4Group(group_size=64)),
    ("deepseek-v3", Fp8Block()),
    ("llama", Fp8Channel()),
    ("llama", Fp8Tensor(activations="none")),
)
PROMPT = [random.Random(7).randrange(3, 48) for _ in range(40)]
DRAWN = 16
MEDIAN = 1e-4
"""Of the differences of log-probabilities, in nats: float32 sums in another order. Seen: 1e-6."""
LARGEST, LARGEST_FP8 = 1e-4, 0.5
"""Of any of them. Seen: 4e-6. An FP8 activation on the edge between two codes is rounded to either one, which moves the log-probabilities
of that token and those behind it: seen in one response of five, up to 0.05."""


@dataclass(frozen=True)
class Served:
    server: CpuServer
    folders: tuple[Path, Path]
    """What it was started with, and other weights of the same model and format."""
    fmt: WeightFormat
    name: str

    def differences(self, folder: Path, scales: float | None = None) -> list[float]:
        """Differences of log-probabilities from our own arithmetic, in order of size; `scales`: of a quantizer that has no others."""
        ids, found = self.server.logprobs(PROMPT, DRAWN)
        model = ServedModel(folder, self.fmt, model_shape(json.loads((folder / "config.json").read_text())), "cpu")
        for name, tensor in read_folder(folder):
            model.load([(name, torch.full_like(tensor, scales) if scales is not None and "scale" in name else tensor)])
        return sorted(abs(a - b) for a, b in zip(found, model.score(ids), strict=True))

    def agrees(self, folder: Path) -> bool:
        found = self.differences(folder)
        print(f"{self.name}: differences of {middle(found):.1e} in the median, {found[-1]:.1e} at most")
        return middle(found) < MEDIAN and found[-1] < (LARGEST if self.fmt.activation_group is None else LARGEST_FP8)


def middle(found: list[float]) -> float:
    return found[len(found) // 2]


def source(folder: Path, architecture: Architecture, seed: int) -> Path:
    """A model with weights of five times the usual spread, so that its distributions are far from uniform."""
    generate_model(folder, ModelOptions(architecture, "blocks", seed=seed))
    tensors = load_file(folder / SINGLE_FILE)
    spread = {name: tensor * 5 if tensor.ndim > 1 else tensor for name, tensor in tensors.items()}
    save_file(spread, folder / SINGLE_FILE, metadata={"format": "pt"})
    return folder


def converted(folder: Path, fmt: WeightFormat) -> Path:
    if isinstance(fmt, Bf16):
        return folder
    target = folder.with_name(f"{folder.name}-{fmt.kind}")
    options = ["--group-size", str(fmt.group_size), "--scope", fmt.scope] if isinstance(fmt, Int4Group) else []
    options += ["--activations", "none"] if getattr(fmt, "activations", "") == "none" else []
    assert convert_all_command([str(folder), str(target), "--to", fmt.kind, *options]) == 0
    return target


@pytest.fixture(scope="module", params=CLAIMED, ids=lambda p: f"{p[0]}-{p[1].kind}-{getattr(p[1], 'activations', 'none')}")
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    torch.set_num_threads(1)
    architecture, fmt = request.param
    room = tmp_path_factory.mktemp(architecture)
    first, second = (converted(source(room / f"seed-{seed}", architecture, seed), fmt) for seed in (3, 4))
    with cpu_server(first, room / "log.txt") as server:
        yield Served(server, (first, second), fmt, f"{architecture}, {described(fmt)}")


@pytest.mark.timeout(1500)
def test_log_probs_are_those_of_our_own_arithmetic(served: Served) -> None:
    assert served.agrees(served.folders[0])


def test_scales_that_were_ignored_would_be_seen(served: Served) -> None:
    """What the test above is worth: other weights, and for quantised ones a platform that knows no scales, are far beyond its limits."""
    assert middle(served.differences(served.folders[1])) > 100 * MEDIAN
    if not isinstance(served.fmt, Bf16):
        assert middle(served.differences(served.folders[0], scales=0.01)) > 100 * MEDIAN


def test_weights_that_come_later_are_served_as_the_first_ones(served: Served) -> None:
    """Weights stay as the checkpoint has them; what is derived from them is derived again."""
    first, second = served.folders
    served.server.load(second)
    assert served.agrees(second)
    served.server.load(first)
    assert served.agrees(first)
