"""`lprl run` with the torch trainer and a real SGLang server, under a real Ray: it learns, and goes on by itself when the server is lost.

One run for all of it: the server is killed once and stopped once, at whatever the run is at, and comes back each time.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

STEPS = 16
STALL_S = 240
PATIENCE_S = 1500.0
"""Half of a stall, a server's start (half a minute where nothing else runs) and a step, ten times over."""


def job_file(root: Path) -> Path:
    """A manifest, its model and its task."""
    volumes = root / "volumes"
    made = [sys.executable, "-m", "lprl_fixtures", "--model", str(volumes / "models" / "toy"), "--data", str(volumes / "data")]
    subprocess.run([*made, "--size", "tiny", "--train", "64", "--heldout", "8"], check=True)
    prompts = {"volume": "data", "path": "train.jsonl"}
    spec = {
        "model": {"source": {"volume": "models", "path": "toy"}},
        "precision": {"training": "bf16", "rollout": "bf16"},
        "conversion": {"volume": "models", "parallelism": 1},
        "backends": {"rollout": "sglang"},
        "data": {"prompts": prompts, "reward": {"type": "exact"}},
        "algorithm": {"steps": STEPS, "rolloutBatchSize": 8, "samplesPerPrompt": 8},
        "optimizer": {"learningRate": 1.0e-3},
        "sampling": {"maxResponseTokens": 4},
        "topology": {"accelerator": "cpu", "nodes": 1},
        "checkpoint": {"volume": "checkpoints", "everySteps": 8},
        "failurePolicy": {"backoffSeconds": 0, "refillSteps": 1, "stallSeconds": STALL_S, "maxRestarts": 0},
        "progress": {"intervalSeconds": 0.2},
        "volumes": {n: {"persistentVolumeClaim": n} for n in ("models", "data", "checkpoints")},
    }
    head = {"apiVersion": "lprl.dev/v1alpha1", "kind": "LowPrecisionRLJob", "metadata": {"name": "toy"}}
    path = root / "job.yaml"
    path.write_text(yaml.safe_dump(head | {"spec": spec}))
    return path


def servers(root: Path) -> list[int]:
    """Process groups of the servers whose files lie below a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if b"sglang.launch_server" in words and any(word.startswith(str(root).encode()) for word in words):
            found.append(int(entry.name))
    return found


def test_a_run_goes_on_by_itself_when_its_server_is_killed_and_when_it_stands_still(tmp_path: Path) -> None:
    rows = tmp_path / "volumes" / "checkpoints" / "checkpoints" / "toy" / "metrics.jsonl"
    line = [sys.executable, "-m", "lprl_cli.main", "run", str(job_file(tmp_path)), "--state-dir", str(tmp_path / "state"), "--no-report"]
    env = dict(os.environ) | {"TMPDIR": str(tmp_path)}
    log = (tmp_path / "run.log").open("w")
    run = subprocess.Popen([*line, "--volumes", str(tmp_path / "volumes")], env=env, stdout=log, stderr=log)

    def until(true: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < end and run.poll() is None, f"{what}: {log_text()}"
            time.sleep(0.1)

    def log_text() -> str:
        driver = tmp_path / "state" / "pods" / "toy-a1-head" / "driver" / "log"
        return (tmp_path / "run.log").read_text()[-1000:] + (driver.read_text()[-4000:] if driver.exists() else "")

    def steps() -> int:
        return len(rows.read_text().splitlines()) if rows.exists() else 0

    try:
        hit: set[int] = set()
        for after, how in ((2, signal.SIGKILL), (6, signal.SIGSTOP)):
            until(lambda after=after: steps() >= after and bool(set(servers(tmp_path)) - hit), f"step {after}")
            (group,) = set(servers(tmp_path)) - hit
            hit.add(group)
            os.killpg(group, how)
            until(lambda: not set(servers(tmp_path)) & hit, "the lost server goes")
        until(lambda: steps() >= STEPS, "the end")
        assert run.wait(PATIENCE_S) == 0, log_text()
    finally:
        run.kill()
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [row["step"] for row in found] == list(range(1, STEPS + 1)), "each step once"
    assert {row["attempt"] for row in found} == {1}, "inside the attempt"
    text = (tmp_path / "state" / "pods" / "toy-a1-head" / "driver" / "log").read_text()
    assert text.count("lost at step") == 2 and "killed by signal 9" in text, text[-4000:]
    assert max(row["k3"] for row in found) < 1e-4
    assert not servers(tmp_path), "nothing is left"


if __name__ == "__main__":
    pytest.main([__file__])
