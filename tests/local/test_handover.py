"""Episodes on a real local Ray, with stand-ins for engine and trainer: what the driver holds, and what a lost node takes with it."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from benchmarks.handover import held_bytes

from lprl_workload.episode import BatchRef, Episode, described, drawn, world

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]


def run(ray_nodes: Any, *arguments: str, **more: Any) -> "subprocess.CompletedProcess[str]":
    env = {**ray_nodes.env, "RAY_ADDRESS": ray_nodes.address, "PYTHONPATH": str(ROOT)}
    try:
        return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=500, **more)
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"{error}: {error.stderr!r}{ray_nodes.said()}") from None


def test_the_driver_holds_no_token_of_a_step(ray_nodes: Any) -> None:
    """64 episodes of 16k tokens, 8 MB: scored, scheduled, trained on; `benchmarks/handover.py` does 2,048 of them."""
    ray_nodes.worker(trainer=2, rollout=2)
    done = run(ray_nodes, "benchmarks/handover.py", "--episodes", "64")
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["episodes"], found["tokens"], found["trained"]) == (64, 64 * 16384, 64.0)
    assert found["characters"] > 4 * found["tokens"] and found["k3"] > 0, "rewards saw all text, the trainer every token"
    assert found["held_bytes"] == 0


def test_that_what_is_held_would_be_found() -> None:
    episode = Episode(0, 0, 0, (world([1]), drawn([2, 3], [0.0, 0.0], 1)), "stop")
    assert held_bytes(BatchRef((described(episode, episode),))) == 4 * (1 + 0 + 2 + 2)


LOST = """
    import os, signal, sys, time
    import numpy as np
    import ray
    from lprl_workload.launch.ray_link import ActorLostError, connect, get_all, read

    class Maker:
        def make(self):
            return ["views", *(np.full(100_000, n) for n in range(2))]

        def take(self, *rows):
            return len(rows)

    connect()
    makers = [ray.remote(num_cpus=0, resources={name: 1})(Maker).remote() for name in ("lprl_rollout", "lprl_trainer")]
    views, *rows = makers[0].make.options(num_returns=3).remote()
    assert ray.get(views) == "views"
    here = ray.put(np.zeros(100_000))
    ray.kill(makers[0])
    time.sleep(1)
    assert ray.get(makers[1].take.remote(here, rows[0])) == 2, "outlives its engine's process"
    os.kill(int(sys.argv[1]), signal.SIGTERM)
    while sum(node["Alive"] for node in ray.nodes()) > 2:
        time.sleep(0.2)
    asked = {"read": lambda: read([here, rows[1]], "episodes"), "take": lambda: get_all([makers[1].take.remote(rows[1])], "train")}
    for name, ask in asked.items():
        try:
            ask()
        except ActorLostError as error:
            print(name, error.number, error, flush=True)
"""


def test_an_episode_outlives_its_engine_and_one_lost_with_its_node_is_told(ray_nodes: Any, tmp_path: Path) -> None:
    ray_nodes.worker(trainer=1)
    node = ray_nodes.worker(rollout=1)
    script = tmp_path / "lost.py"
    script.write_text(textwrap.dedent(LOST))
    done = run(ray_nodes, str(script), str(node.pid))
    assert done.returncode == 0, done.stderr[-3000:]
    # Ray itself tells on the same stream, now and then, that a process of its own was killed.
    read, take = (line for line in done.stdout.splitlines() if line.startswith(("read ", "take ")))
    assert read == "read 1 episodes: lost with the node that held them"
    assert take.startswith("take 0 train: process 0: ")
