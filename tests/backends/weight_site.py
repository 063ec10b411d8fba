"""Small models whose widths SGLang serves in every format, their served tensors, and one real server for pushes into it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import torch
from safetensors.torch import save_file

from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.spec.precision import Scope
from lprl_fixtures.architectures import Architecture, model_config
from lprl_fixtures.shape import model_shape
from lprl_fixtures.tensors import tensor_specs
from lprl_fixtures.tokenizer import build_tokenizer, write_tokenizer
from lprl_fixtures.weights import initial_tensor
from lprl_workload.data import NamedTensor
from lprl_workload.hf.served import ServedModel
from lprl_workload.io.dtypes import DTYPE_NAMES
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.quant.config_json import KEYS, quantization_config
from lprl_workload.quant.scheme import quantize
from lprl_workload.quant.select import Selection
from lprl_workload.rollout.sglang.control import Control, ControlError
from lprl_workload.rollout.sglang.inside import LOADER
from lprl_workload.rollout.sglang.releases import Release
from lprl_workload.rollout.sglang.weights import Weights
from lprl_workload.sync.buckets import pack
from lprl_workload.sync.checks import Check
from lprl_workload.sync.checksum import checksum
from lprl_workload.sync.probe import probe_ids

READY_S, ANSWER_S = 600.0, 300.0
"""A start takes a quarter of a minute, most of it imports; a machine under load may take many times that."""
SPREAD = 0.1
"""Of weights: distributions far from uniform."""
FORMATS: dict[str, WeightFormat] = {
    "bf16": Bf16(),
    "fp8": Fp8Block(),
    "fp8-weight-only": Fp8Block(activations="none"),
    "fp8-channel": Fp8Channel(),
    "fp8-tensor": Fp8Tensor(activations="none"),
}


def format_of(name: str, architecture: Architecture, shape: ModelShape) -> WeightFormat:
    scope = Scope.ROUTED_EXPERTS if shape.moe else Scope.ALL_LINEAR
    return FORMATS.get(name) or Int4Group(group_size=64 if architecture == "qwen3-moe" else 32, scope=scope)


@dataclass
class Model:
    """A folder with the config.json of a small model in a format, without weights."""

    folder: Path
    architecture: Architecture
    kind: str

    def __post_init__(self) -> None:
        tokenizer = write_tokenizer(self.folder, build_tokenizer)
        ends = tokenizer.pad_token_id, tokenizer.eos_token_id
        self.config: dict[str, Any] = model_config(self.architecture, "blocks", len(tokenizer), *ends)
        self.shape = model_shape(self.config)
        self.fmt = format_of(self.kind, self.architecture, self.shape)
        self.selection = Selection(self.fmt, self.shape)
        names = [spec.name for spec in tensor_specs(self.config, False)]
        section = quantization_config(self.fmt, Selection.of(self.fmt, self.shape, names), names)
        view = self.config | ({KEYS[0]: section} if section is not None else {})
        (self.folder / "config.json").write_text(json.dumps(view))

    def tensors(self, seed: int) -> list[NamedTensor]:
        """A model's served tensors; another seed, another model."""
        found: list[NamedTensor] = []
        for spec in tensor_specs(self.config, False):
            tensor = initial_tensor(spec, torch.bfloat16, seed, SPREAD)
            if spec.init != "normal":
                tensor = initial_tensor(type(spec)(spec.name, spec.shape, "normal", spec.float32), torch.bfloat16, seed, 0.05) + tensor
            taken = not isinstance(self.fmt, Bf16) and self.selection.selects(spec.name, spec.shape)
            parts = quantize(spec.name, tensor, self.fmt) if taken else {spec.name: tensor}
            found += [NamedTensor(name, value) for name, value in parts.items()]
        return found

    def expected(self, tensors: list[NamedTensor]) -> list[float]:
        """What our own arithmetic finds."""
        served = ServedModel(self.folder, self.fmt, self.shape, "cpu")
        served.load((item.name, item.tensor) for item in tensors)
        return list(served.score(probe_ids(self.shape.vocab)))

    def write(self, folder: Path, tensors: list[NamedTensor]) -> Path:
        """Write a checkpoint of these tensors."""
        folder.mkdir()
        for path in self.folder.glob("*.json"):
            (folder / path.name).write_bytes(path.read_bytes())
        save_file({item.name: item.tensor.contiguous() for item in tensors}, folder / "model.safetensors", metadata={"format": "pt"})
        return folder


@dataclass
class Site(Model):
    """A server of it."""

    ranks: int = 1
    loaded: Path | None = None
    """Checkpoint of the same model and format whose weights it is started with; None: without any, as the engine starts its server."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.port = _free_port()
        self.log = self.folder / "server.log"
        self._process = self._started()
        self.control = Control(f"http://127.0.0.1:{self.port}", "admin", ANSWER_S, data_key="data")
        self._ready()
        self.release = Release.of(self.control.server_info(), self.control.api())
        self.weights = Weights(self.control, self.release, self.ranks)
        self.version = 0

    def _started(self) -> subprocess.Popen[bytes]:
        asked = ["--model-path", str(self.loaded or self.folder), "--load-format", "auto" if self.loaded else "dummy"]
        asked += ["--device", "cpu", "--host", "127.0.0.1", "--port", str(self.port), "--tp-size", str(self.ranks)]
        asked += ["--max-total-tokens", "4096", "--context-length", "512", "--skip-tokenizer-init", "--skip-server-warmup"]
        asked += ["--api-key", "data", "--admin-api-key", "admin", "--custom-weight-loader", LOADER, "--sleep-on-idle"]
        env = dict(os.environ) | {"SGLANG_PLATFORM": "lprl-cpu", "OMP_NUM_THREADS": "1", "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0"}
        env |= {"SGLANG_CPU_OMP_THREADS_BIND": "|".join(map(str, range(self.ranks)))} if self.ranks > 1 else {}
        with self.log.open("wb") as log:
            command = [sys.executable, "-m", "sglang.launch_server", *asked]
            return subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)

    def _ready(self) -> None:
        until = time.monotonic() + READY_S
        while True:
            with suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=10).status_code == 200:
                    return
            assert self._process.poll() is None and time.monotonic() < until, self.log.read_text()[-3000:]
            time.sleep(0.5)

    def push(self, tensors: list[NamedTensor], sent: list[NamedTensor] | None = None, strong: bool = True, bucket: int = 1 << 17) -> None:
        """Send `sent` while claiming that it is `tensors`; as small buckets, whose memory is used again."""
        self.version += 1
        self.weights.begin(self.version, strong)
        try:
            for packed in pack(tensors if sent is None else sent, bucket):
                self.weights.load(packed)
                packed.data.fill_(255)
        except WeightMismatchError as error:
            self.weights.abort(str(error))
            raise
        self.weights.end(self.version, check_of(tensors, strong))

    def drawn(self, prompt: Sequence[int], more: int) -> tuple[list[int], list[float]]:
        """Return the prompt followed by `more` drawn tokens, and the log-probabilities of all but the first."""
        sampling = {"temperature": 1.0, "max_new_tokens": more, "ignore_eos": True}
        answer = httpx.post(
            f"http://127.0.0.1:{self.port}/generate",
            json={"input_ids": list(prompt), "sampling_params": sampling, "return_logprob": True, "logprob_start_len": 0},
            headers={"Authorization": "Bearer data"},
            timeout=ANSWER_S,
        )
        assert answer.status_code == 200, answer.text
        meta = answer.json()["meta_info"]
        found = [*meta["input_token_logprobs"][1:], *meta["output_token_logprobs"]]
        return [*prompt, *answer.json()["output_ids"]], [float(entry[0]) for entry in found]

    def logprobs(self) -> list[float]:
        """What the server finds for the probe's tokens."""
        ids = probe_ids(self.shape.vocab)
        return self.drawn(ids, 1)[1][: len(ids) - 1]

    def close(self) -> None:
        self.weights.close()
        self.control.close()
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def check_of(tensors: list[NamedTensor], strong: bool = True) -> Check:
    specs = [(item.name, DTYPE_NAMES[item.tensor.dtype], tuple(item.tensor.shape)) for item in tensors]
    return Check.of(specs, {item.name: int(checksum(item.tensor)) for item in tensors} if strong else None)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def difference(one: list[float], two: list[float]) -> float:
    assert len(one) == len(two)
    return max(abs(a - b) for a, b in zip(one, two, strict=True))


__all__ = ["ControlError", "Site", "check_of", "difference"]
