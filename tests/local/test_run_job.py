"""`lprl run` on real processes and a real Ray: a whole life, a user error, kill -9 of everything, suspend and resume."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lprl_cli import exits
from lprl_cli.runfolder import RunFolder, find
from lprl_operator.places.local.folders import Folders
from lprl_operator.places.local.process import marked_processes

pytestmark = [pytest.mark.ray, pytest.mark.timeout(2400)]
STEPS = 40
KILLS = int(os.environ.get("LPRL_KILLS", "4"))
REWARD = {"type": "python", "function": "lprl_fixtures.runs:even_share_held", "timeoutSeconds": 3600}
UNCOMPARED = ("attempt", "time", "tokens_per_second", "weight_version")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and a task, made once."""
    root = tmp_path_factory.mktemp("inputs")
    line = [sys.executable, "-m", "lprl_fixtures", "--model", str(root / "models" / "toy"), "--data", str(root / "data")]
    subprocess.run([*line, "--size", "tiny", "--train", "64", "--heldout", "8", "--shards", "2"], check=True)
    return root


class Job:
    """One manifest in a folder of its own, run through the command line."""

    def __init__(self, root: Path, inputs: Path, **changes: Any) -> None:
        self.root = root
        self.volumes = root / "volumes"
        self.volumes.mkdir()
        for name in ("models", "data"):
            subprocess.run(["cp", "-r", str(inputs / name), str(self.volumes / name)], check=True)
        self.manifest = root / "job.yaml"
        self.manifest.write_text(yaml.safe_dump(self._document(changes)))
        self.state = root / "state"

    def _document(self, changes: dict[str, Any]) -> dict[str, Any]:
        prompts = {"volume": "data", "path": "train.jsonl"}
        spec = {
            "model": {"source": {"volume": "models", "path": "toy"}},
            "precision": {"training": "int4-qat", "rollout": "int4", "int4": {"groupSize": 32, "scope": "all-linear"}},
            "conversion": {"volume": "models", "parallelism": 1},
            "data": {"prompts": prompts, "reward": REWARD},
            "algorithm": {"steps": STEPS, "rolloutBatchSize": 2, "samplesPerPrompt": 2, "entropyCoefficient": 0.05},
            "optimizer": {"learningRate": 1.0e-3},
            "sampling": {"maxResponseTokens": 4},
            "topology": {"accelerator": "cpu", "nodes": 1},
            "checkpoint": {"volume": "checkpoints", "everySteps": 5},
            "failurePolicy": {"backoffSeconds": 0, "refillSteps": 1},
            "progress": {"intervalSeconds": 0.2},
            "volumes": {n: {"persistentVolumeClaim": n} for n in ("models", "data", "checkpoints")},
        }
        return {
            "apiVersion": "lprl.dev/v1alpha1",
            "kind": "LowPrecisionRLJob",
            "metadata": {"name": "toy"},
            "spec": {**spec, **changes},
        }

    def start(self) -> "subprocess.Popen[str]":
        line = [sys.executable, "-m", "lprl_cli.main", "run", str(self.manifest), "--state-dir", str(self.state), "--no-report"]
        line += ["--volumes", str(self.volumes)]
        return subprocess.Popen(line, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self) -> tuple[int, str]:
        process = self.start()
        out, _ = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out

    @property
    def found(self) -> RunFolder:
        return find(str(self.state))

    @property
    def processes(self) -> list[int]:
        return marked_processes(f"{Folders.of(self.state, self.volumes).state_id}:")

    def series(self) -> list[dict[str, Any]]:
        rows = self.found.rows("metrics.jsonl")
        return [{k: v for k, v in r.items() if k not in UNCOMPARED and not k.endswith("_seconds")} for r in rows]

    @property
    def rows(self) -> Path:
        return self.volumes / "checkpoints" / "checkpoints" / "toy" / "metrics.jsonl"

    def steps(self) -> int:
        return len(self.rows.read_text().splitlines()) if self.rows.exists() else 0

    def hold(self, step: int) -> None:
        """Let it go on to `step`, or to the one it is at, and hold it there."""
        aside = self.volumes / "data" / "held.tmp"
        aside.write_text(f"{step} {self.rows}")
        aside.rename(aside.with_suffix(""))

    def let_go(self) -> None:
        (self.volumes / "data" / "held").unlink()

    def suspend(self, process: "subprocess.Popen[str]") -> None:
        """Suspend it, and return when the driver that is held was told, or has ended: it may hear of it before it is held."""
        subprocess.run([sys.executable, "-m", "lprl_cli.main", "suspend", str(self.state)], check=True)
        told = self.state / "configmaps" / "toy-a1-progress"
        wait(lambda: '"suspend":true' in (told / "control.json").read_text().replace(" ", ""), "the driver is told")

        def reports() -> int:
            return int(json.loads((told / "progress.json").read_text())["sequence"])

        before = reports()
        wait(lambda: process.poll() is not None or reports() >= before + 2, "the driver heard of it")


PATIENCE_S = 900.0
"""For what takes 20 s on an idle machine: eight lanes of tests share two cores. No run ends meanwhile: it is held."""


def wait(done: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture(scope="module")
def finished(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """An uninterrupted run."""
    job = Job(tmp_path_factory.mktemp("finished"), inputs)
    code, out = job.run()
    assert code == exits.OK, out
    return job


def test_a_whole_life(finished: Job) -> None:
    phases = [e["phase"] for e in finished.found.events() if "phase" in e]
    assert phases[-1] == "Succeeded"
    order = [p for p in ("Inspecting", "Converting", "Provisioning", "Running") if p in phases]
    assert order == ["Inspecting", "Converting", "Provisioning", "Running"]
    assert [r["step"] for r in finished.found.rows("metrics.jsonl")] == list(range(1, STEPS + 1))
    assert finished.processes == []
    assert (finished.found.run / "export" / "bf16" / "config.json").exists()


def test_a_finished_run_says_so(finished: Job) -> None:
    before = finished.steps()
    code, out = finished.run()
    assert (code, finished.steps()) == (exits.OK, before)
    assert "finished earlier" in out


def test_a_user_error_fails_with_reason_and_remedy(inputs: Path, tmp_path: Path) -> None:
    job = Job(tmp_path, inputs)
    (job.volumes / "models" / "toy" / "config.json").write_text('{"architectures": ["Unknown"], "model_type": "unknown"}')
    code, out = job.run()
    assert code == exits.JOB_FAILED
    assert "error: UserError" in out and "fix:" in out and "Traceback" not in out
    assert job.processes == []


def kill_something(job: Job, process: "subprocess.Popen[str]", target: str) -> "subprocess.Popen[str]":
    """Kill a container of the newest attempt, or the supervisor, which is then started again; returns the supervisor."""
    if target == "supervisor":
        process.kill()
        process.communicate()
        wait(lambda: not job.processes, "children end with the supervisor")
        return job.start()
    newest = max((job.state / "pods").glob(target), key=lambda p: (p / "launch.json").stat().st_mtime)
    with contextlib.suppress(ProcessLookupError):  # an attempt that just ended
        os.kill(json.loads((newest / "launch.json").read_text())["pid"], signal.SIGKILL)
    return process


@pytest.mark.faults
@pytest.mark.timeout(1200 + 1000 * KILLS)
def test_killed_at_random_moments_ends_like_an_uninterrupted_one(inputs: Path, tmp_path: Path, finished: Job) -> None:
    """Driver, Ray head, worker and supervisor in some order, up to six kills a life; $LPRL_KILLS in all."""
    done, chance = 0, random.Random(20)
    targets = ["toy-a*-head/driver", "toy-a*-head/ray-head", "toy-a*-workers-worker-*/ray-worker", "supervisor"]
    while done < KILLS:
        root = tmp_path / f"life-{done}"
        root.mkdir()
        job = Job(root, inputs)
        job.hold(2)
        process = job.start()
        for number in range(min(6, KILLS - done)):
            chance.shuffle(targets if number % len(targets) == 0 else [])
            goal = min(job.steps() + chance.randint(1, 6), STEPS - 4)
            job.hold(goal + 2)
            wait(lambda job=job, goal=goal: job.steps() >= goal, f"step {goal}")  # type: ignore[misc]
            time.sleep(chance.uniform(0, 0.3))  # anywhere in a step: any moment is as good
            process, done = kill_something(job, process, targets[number % len(targets)]), done + 1
        job.let_go()
        out, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == exits.OK, out
        assert job.series() == finished.series()
        assert job.processes == []


def test_suspend_checkpoints_and_resume_goes_on(inputs: Path, tmp_path: Path, finished: Job) -> None:
    job = Job(tmp_path, inputs)
    job.hold(3)
    process = job.start()
    wait(lambda: job.steps() >= 2, "two steps")
    job.suspend(process)
    job.let_go()
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == exits.SUSPENDED, out
    assert job.processes == [] and job.steps() < STEPS
    subprocess.run([sys.executable, "-m", "lprl_cli.main", "resume", str(job.state)], check=True)
    code, out = job.run()
    assert code == exits.OK, out
    assert job.series() == finished.series()


def test_a_failed_run_goes_on_with_a_corrected_manifest_and_not_with_another(inputs: Path, tmp_path: Path, finished: Job) -> None:
    job = Job(tmp_path, inputs, failurePolicy={"maxRestarts": 0})
    job.hold(8)
    process = job.start()
    wait(lambda: job.steps() == 8, "eight steps, of which five are saved")
    kill_something(job, process, "toy-a*-head/driver")
    out, _ = process.communicate(timeout=PATIENCE_S)
    job.let_go()
    assert process.returncode == exits.JOB_FAILED, out
    assert "error: RestartsExhausted: " in out and "then run the same command again (it goes on from step" in out and "--restart" not in out
    other = yaml.safe_load(job.manifest.read_text())
    other["spec"]["algorithm"]["seed"] = 7
    right, before = job.manifest.read_text(), sorted(p.name for p in job.found.run.iterdir())
    job.manifest.write_text(yaml.safe_dump(other))
    code, out = job.run()
    assert code == exits.USER_ERROR and "spec.algorithm.seed was 0, is 7" in out and "--restart" in out
    assert sorted(p.name for p in job.found.run.iterdir()) == before, "nothing was moved aside"
    job.manifest.write_text(right.replace("maxRestarts: 0", "maxRestarts: 2"))
    code, out = job.run()
    assert code == exits.OK, out
    assert "failed; it is tried again, from step" in out
    status = job.found.status()
    assert status["attempt"] == 2 and status.get("restartsUsed", 0) == 0, "above the fence of the life before, free of charge"
    assert any(e.get("reason") == "ResumesEarlierJob" for e in job.found.events())
    assert job.series() == finished.series()


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_a_driver_whose_main_thread_hangs_is_restarted_though_it_reports(inputs: Path, tmp_path: Path, finished: Job) -> None:
    stall_s = 45
    reward = {"type": "python", "function": "lprl_fixtures.runs:even_share_then_hang", "timeoutSeconds": 3600}
    data = {"prompts": {"volume": "data", "path": "train.jsonl"}, "reward": reward}
    job = Job(tmp_path, inputs, data=data, failurePolicy={"backoffSeconds": 0, "refillSteps": 1000, "stallSeconds": stall_s})
    process = job.start()
    wait(lambda: job.steps() == 7, "step 7, after which it hangs")
    hung_at = time.monotonic()
    wait(lambda: bool(job.found.status().get("failures")), "the stall is seen", stall_s + 30)
    assert time.monotonic() - hung_at < stall_s + 10
    out, _ = process.communicate(timeout=600)
    assert process.returncode == exits.OK, out
    status = job.found.status()
    (failure,) = status["failures"]
    assert (status["attempt"], status["restartsUsed"], failure["reason"]) == (2, 1, "Stalled")
    assert failure["message"] == f"step 8: rewards, 1 of 4 responses, no movement for {stall_s} s"
    assert job.series() == finished.series() and job.processes == []
