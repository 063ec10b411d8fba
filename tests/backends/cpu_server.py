"""An SGLang server on this machine's CPU with our platform plugin, and what tests ask of it."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

READY_S = 600
"""A start takes a quarter of a minute, most of it imports; a machine under load may take many times that."""
ANSWER_S = 300


@dataclass(frozen=True)
class CpuServer:
    """A server that is ready."""

    url: str
    key: str
    admin_key: str
    log: Path

    def ask(self, path: str, body: dict[str, Any], admin: bool = False) -> dict[str, Any]:
        header = {"Authorization": f"Bearer {self.admin_key if admin else self.key}"}
        reply = httpx2.post(self.url + path, json=body, headers=header, timeout=ANSWER_S)
        assert reply.status_code == 200, (path, reply.text[:500])
        return dict(reply.json())

    def logprobs(self, prompt: Sequence[int], more: int) -> tuple[list[int], list[float]]:
        """Return the prompt followed by `more` drawn tokens, and the log-probabilities of all but the first."""
        drawn = {"temperature": 1.0, "max_new_tokens": more, "ignore_eos": True}
        body = {"input_ids": list(prompt), "sampling_params": drawn, "return_logprob": True, "logprob_start_len": 0}
        reply = self.ask("/generate", body)
        meta = reply["meta_info"]
        found = [*meta["input_token_logprobs"][1:], *meta["output_token_logprobs"]]
        return [*prompt, *reply["output_ids"]], [entry[0] for entry in found]

    def load(self, folder: Path) -> None:
        """Serve another folder's weights from here on."""
        assert self.ask("/update_weights_from_disk", {"model_path": str(folder)}, admin=True)["success"]


@contextmanager
def cpu_server(folder: Path, log: Path, *options: str) -> Iterator[CpuServer]:
    """Yield a server of `folder`, whose processes end with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    key, admin_key = secrets.token_hex(8), secrets.token_hex(8)
    where = ["--model-path", str(folder), "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    keys = ["--api-key", key, "--admin-api-key", admin_key]
    command = [sys.executable, "-m", "sglang.launch_server", *where, *keys, "--max-total-tokens", "2048", "--skip-server-warmup", *options]
    environment = os.environ | {"SGLANG_PLATFORM": "lprl-cpu", "OMP_NUM_THREADS": "1"}
    with log.open("w") as told:
        process = subprocess.Popen(command, stdout=told, stderr=told, env=environment, start_new_session=True)
    try:
        _wait_ready(process, f"http://127.0.0.1:{port}/health", log)
        yield CpuServer(f"http://127.0.0.1:{port}", key, admin_key, log)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        assert process.poll() is None, f"the server ended:\n{log.read_text()[-3000:]}"
        try:
            if httpx2.get(url, timeout=ANSWER_S).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.3)
    raise AssertionError(f"not ready after {READY_S} s:\n{log.read_text()[-3000:]}")
