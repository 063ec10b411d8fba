"""A bare SGLang server with weights of its own making, started and asked as plainly as can be; its output head is the engine's."""

import argparse
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import httpx2 as httpx

from lprl_api.model.formats import WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_workload.hf.model import compute_dtype
from lprl_workload.rollout.sglang.installed import installed
from lprl_workload.rollout.sglang.process import free_port
from lprl_workload.rollout.sglang.view import write_view

READY_S = 600.0


class Bare:
    """One server, from `with` to its end."""

    def __init__(self, source: Path, fmt: WeightFormat, shape: ModelShape, args: argparse.Namespace, context: int) -> None:
        """Start nothing yet; `args`: of serve.py."""
        self._folder = Path(tempfile.mkdtemp(prefix="bare-"))
        write_view(source, fmt, shape, self._folder / "model")
        self._port = free_port()
        graphs = ["--cuda-graph-bs-decode", *map(str, args.batches), "--mem-fraction-static", str(args.memory_fraction)]
        graphs += [] if args.bf16_head else ["--enable-fp32-lm-head"]
        self._command = [
            str(installed().python), "-m", "sglang.launch_server", "--model-path", str(self._folder / "model"), "--load-format", "dummy",
            "--dtype", str(compute_dtype(args.device)).removeprefix("torch."), "--host", "127.0.0.1", "--port", str(self._port),
            "--context-length", str(context + 16), "--max-running-requests", str(max(args.batches)), "--skip-tokenizer-init",
            "--grammar-backend", "none", *(graphs if args.device.startswith("cuda") else ["--device", "cpu", "--max-total-tokens", "8192"]),
        ]  # fmt: skip

    def __enter__(self) -> "Bare":
        began = time.perf_counter()
        self.log = self._folder / "server.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        while time.perf_counter() - began < READY_S:
            if self._process.poll() is not None:
                break
            try:
                if httpx.get(f"http://127.0.0.1:{self._port}/health_generate", timeout=30).status_code == httpx.codes.OK:
                    self.start_seconds = time.perf_counter() - began
                    return self
            except httpx.HTTPError:
                time.sleep(0.5)
        self.__exit__(None, None, None)
        raise SystemExit(f"the bare server did not start:\n{self.log.read_text()[-3000:]}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def draw(self, ids: list[list[int]], tokens: int) -> float:
        """See draw_at."""
        return draw_at(f"http://127.0.0.1:{self._port}", "", ids, tokens)


def draw_at(address: str, key: str, ids: list[list[int]], tokens: int) -> float:
    """Return the seconds in which one unstreamed request draws `tokens` tokens behind each row, without log-probabilities."""
    sampling = {"temperature": 1.0, "max_new_tokens": tokens, "ignore_eos": True}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    began = time.perf_counter()
    answer = httpx.post(f"{address}/generate", json={"input_ids": ids, "sampling_params": sampling}, headers=headers, timeout=None)
    seconds = time.perf_counter() - began
    drawn = [len(row["output_ids"]) for row in answer.json()]
    assert drawn == [tokens] * len(ids), drawn
    return seconds
