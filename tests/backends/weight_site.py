"""Small models whose widths SGLang serves in every format, their served tensors, and one real server for pushes into it."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import torch
from safetensors.torch import save_file

from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Int4Group, WeightFormat
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

READY_S = 600.0
SPREAD = 0.1
"""Of weights: distributions far from uniform."""


def format_of(name: str, shape: ModelShape) -> WeightFormat:
    scope = Scope.ROUTED_EXPERTS if shape.moe else Scope.ALL_LINEAR
    int4 = Int4Group(group_size=32, scope=scope)
    return {"bf16": Bf16(), "fp8": Fp8Block(), "fp8-channel": Fp8Channel(), "int4": int4}[name]


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
        self.fmt = format_of(self.kind, self.shape)
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
    """A server of it, started empty."""

    ranks: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.port = _free_port()
        self.log = self.folder / "server.log"
        self._process = self._started()
        self.control = Control(f"http://127.0.0.1:{self.port}", "admin", 300, data_key="data")
        self._ready()
        self.release = Release.of(self.control.server_info(), self.control.api())
        self.weights = Weights(self.control, self.release, self.ranks)
        self.version = 0

    def _started(self) -> subprocess.Popen[bytes]:
        asked = [
            "--model-path",
            str(self.folder),
            "--load-format",
            "dummy",
            "--device",
            "cpu",
            "--port",
            str(self.port),
            "--host",
            "127.0.0.1",
        ]
        asked += ["--max-total-tokens", "4096", "--context-length", "512", "--dtype", "float32", "--skip-tokenizer-init"]
        asked += ["--tp-size", str(self.ranks)]
        asked += ["--api-key", "data", "--admin-api-key", "admin", "--custom-weight-loader", LOADER]
        env = dict(os.environ) | {"SGLANG_PLATFORM": "lprl-cpu", "OMP_NUM_THREADS": "1", "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0"}
        env |= {"SGLANG_CPU_OMP_THREADS_BIND": "|".join(map(str, range(self.ranks)))} if self.ranks > 1 else {}
        with self.log.open("wb") as log:
            command = [sys.executable, "-m", "sglang.launch_server", *asked]
            return subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)

    def _ready(self) -> None:
        until = time.monotonic() + READY_S
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=10).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
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

    def logprobs(self) -> list[float]:
        """What the server finds for the probe's tokens."""
        ids = probe_ids(self.shape.vocab)
        asked = {"input_ids": list(ids), "sampling_params": {"max_new_tokens": 1, "temperature": 1.0}}
        answer = httpx.post(
            f"http://127.0.0.1:{self.port}/generate",
            json=asked | {"return_logprob": True, "logprob_start_len": 0},
            headers={"Authorization": "Bearer data"},
            timeout=300,
        )
        assert answer.status_code == 200, answer.text
        return [float(row[0]) for row in answer.json()["meta_info"]["input_token_logprobs"][1:]]

    def close(self) -> None:
        self.weights.close()
        self.control.close()
        os.killpg(self._process.pid, 9)
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
