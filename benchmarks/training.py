"""Training runs of benchmarks: a process each, which is the run itself or starts it, and the figures it leaves."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, Protocol

import yaml

from lprl_api.model.hf_config import shape_from_config
from lprl_api.model.model_shape import Inspection
from lprl_api.spec.job import LowPrecisionRLJob
from lprl_operator.plan.plan import make_plan
from lprl_operator.resources.runconfig import run_config
from lprl_operator.resources.settings import RenderSettings

LAST_STEPS = 10
"""`reward_last` is the mean over this many last steps."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
DONE, RUN, JOB = "done.json", "run.json", "job.yaml"
LINE_SECONDS, POLL_SECONDS = 20.0, 0.5


class Case(Protocol):
    """One run: what it is called, what it depends on, and how its inputs are made."""

    @property
    def architecture(self) -> str:
        """Model, as tables and pictures name it."""

    @property
    def mode(self) -> str:
        """Precision pair, training/rollout, with what else tells pairs apart."""

    @property
    def seed(self) -> int:
        """Seed of data and sampling."""

    @property
    def name(self) -> str:
        """Name of the folder and in messages."""

    @property
    def key(self) -> str:
        """What the result depends on, as a digest; a finished run with another key is made again."""

    def write_inputs(self, folder: Path) -> Path:
        """Write everything the run reads below `folder`; returns its RunConfig, or what else its command wants."""


Command = Callable[[Path, Path], list[str]]
"""The command line of a run, from its folder and what `write_inputs` returned."""


def in_process(_: Path, config: Path) -> list[str]:
    """Return the command that runs a RunConfig in one process, without Ray."""
    return [sys.executable, "-m", "lprl_workload", "train", "--config", str(config), "--attempt", "1", "--in-process"]


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run showed. Times and rates are of the machine it ran on."""

    architecture: str
    mode: str
    seed: int
    steps: int
    reward_first: float
    """Mean training reward of step 1."""
    reward_last: float
    """Mean training reward of the last 10 steps."""
    heldout_first: float
    """Greedy reward on held-out prompts before the first update."""
    heldout_last: float
    """The same after the last one."""
    k3_mean: float
    logprob_diff_mean: float
    """Means over all steps."""
    quantization_error: float
    """Relative RMS error of the served against the BF16 weights, last sync."""
    tokens_per_second: float
    """Median over steps, of generated tokens by the time of the whole step."""
    seconds: float
    """Wall time of the process."""


@dataclass(frozen=True, slots=True)
class Result:
    """Figures of a run and the series the pictures need."""

    figures: Figures
    steps: tuple[dict[str, Any], ...]
    """Rows of metrics.jsonl."""
    evaluations: tuple[dict[str, Any], ...]


class Running:
    """A started run; `poll` is None until it ended."""

    def __init__(self, case: Case, folder: Path, threads: int = 1, command: Command = in_process) -> None:
        """Make the inputs in `folder`, whatever it held before, and start the process with `threads` threads."""
        self.case, self.folder = case, folder
        shutil.rmtree(folder, ignore_errors=True)
        written = case.write_inputs(folder)
        self._started = time.monotonic()
        self._log = (folder / "log.txt").open("wb")
        environment = os.environ | dict.fromkeys(THREADS, str(threads)) | {
            "LPRL_VOLUMES_ROOT": str(folder),
            "LPRL_LOCAL_CONFIGMAPS": str(folder / "configmaps"),
            "LPRL_TERMINATION_LOG": str(folder / "termination.json"),
        }  # fmt: skip
        self._process = subprocess.Popen(command(folder, written), env=environment, stdout=self._log, stderr=subprocess.STDOUT)

    def poll(self) -> int | None:
        """Return the exit code, None while it runs; a run that ended well is marked as done."""
        code = self._process.poll()
        if code is not None:
            self._log.close()
            if code == 0:
                done = {"key": self.case.key, "seconds": time.monotonic() - self._started}
                (self.folder / DONE).write_text(json.dumps(done) + "\n")
        return code

    def stop(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def line(self) -> str:
        """Return where it is, in a few words."""
        rows = _rows(self.folder, "metrics.jsonl")
        if not rows:
            return f"{self.case.name} starting"
        return f"{self.case.name} {progress(rows, steps_of(self.folder))}"

    def tail(self) -> str:
        """Return the end of its log."""
        return "\n".join((self.folder / "log.txt").read_text(errors="replace").splitlines()[-15:])


def steps_of(folder: Path) -> int:
    """Return the steps of the run whose RunConfig, or manifest, lies in `folder`."""
    run = folder / RUN
    settings = json.loads(run.read_text()) if run.exists() else yaml.safe_load((folder / JOB).read_text())["spec"]
    return int(settings["algorithm"]["steps"])


def progress(rows: Sequence[Mapping[str, Any]], steps: int) -> str:
    """Return where a run of so many steps is, by the rows of its metrics (at least one): figures of the last one, and the time left."""
    last = rows[-1]
    left = median(row["step_seconds"] for row in rows) * (steps - last["step"])
    end = f", {left / 60.0:.1f} min left" if left else ""
    return f"step {last['step']}/{steps} reward {last['reward']:.2f} k3 {last['k3']:.1e} {last['tokens_per_second']:.0f} tok/s{end}"


def is_done(case: Case, folder: Path) -> bool:
    """Return whether `folder` holds this very run, finished."""
    done = folder / DONE
    return done.is_file() and json.loads(done.read_text())["key"] == case.key


def result_of(case: Case, folder: Path) -> Result:
    """Read what a finished run left."""
    steps, evaluations = _rows(folder, "metrics.jsonl"), _rows(folder, "evaluations.jsonl")
    figures = Figures(
        architecture=case.architecture,
        mode=case.mode,
        seed=case.seed,
        steps=len(steps),
        reward_first=steps[0]["reward"],
        reward_last=fmean(row["reward"] for row in steps[-LAST_STEPS:]),
        heldout_first=evaluations[0]["reward"],
        heldout_last=evaluations[-1]["reward"],
        k3_mean=fmean(row["k3"] for row in steps),
        logprob_diff_mean=fmean(row["logprob_diff"] for row in steps),
        quantization_error=steps[-1]["quantization_error"],
        tokens_per_second=median(row["tokens_per_second"] for row in steps),
        seconds=json.loads((folder / DONE).read_text())["seconds"],
    )
    return Result(figures, tuple(steps), tuple(evaluations))


def document(result: Result) -> dict[str, Any]:
    """Return a run's figures for results.json."""
    return asdict(result.figures)


def _rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file of the run below `folder`; a last line being written is left out."""
    found = next((folder / "checkpoints").rglob(name), None)
    lines = found.read_text().splitlines(keepends=True) if found else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def write_run(job: LowPrecisionRLJob, folder: Path) -> Path:
    """Write the RunConfig of a job whose volumes are folders of `folder`, and what a run needs there; returns its file.

    The conversion phase is left out: the engine takes config and tokenizer from the source folder, and its weights, quantised,
    from the first push, which comes before the first rollout.
    """
    source = job.spec.model.source
    model = folder / str(source.volume) / str(source.path)
    shape = shape_from_config(json.loads((model / "config.json").read_text()))
    with (model / "model.safetensors").open("rb") as weights:
        fingerprint = hashlib.file_digest(weights, "sha256").hexdigest()
    size = (model / "model.safetensors").stat().st_size
    inspection = Inspection(shape=shape, fingerprint=fingerprint, total_bytes=size, tensors=1, shards=1)
    config = run_config(job, make_plan(job.spec, shape), inspection, RenderSettings(prometheus_port=None))
    export = config.checkpoint.model_copy(update={"export_formats": ("bf16",)})
    config = config.model_copy(update={"rollout_path": config.model_path, "checkpoint": export})
    (folder / "checkpoints").mkdir()
    (folder / "configmaps" / f"{job.metadata.name}-a1-progress").mkdir(parents=True)
    path = folder / RUN
    path.write_text(json.dumps(config.document()))
    return path


def say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


def run_all(todo: Sequence[Case], folder: Path, at_a_time: int, threads: int = 1, command: Command = in_process) -> list[str]:
    """Run the cases, some at a time, with a line for each that ended and now and then one for those that run; returns the failures."""
    waiting, failures, running = list(todo), list[str](), list[Running]()
    said = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < at_a_time:
                case = waiting.pop(0)
                running.append(Running(case, folder / case.name, threads, command))
            time.sleep(POLL_SECONDS)
            for one in list(running):
                code = one.poll()
                if code is None:
                    continue
                running.remove(one)
                say(f"done    {one.line()}; {len(waiting) + len(running)} to go" if code == 0 else f"FAILED  {one.case.name}: exit {code}")
                if code:
                    failures.append(f"{one.case.name}: exit {code}\n{one.tail()}")
            if time.monotonic() - said > LINE_SECONDS:
                said = time.monotonic()
                say("running " + " | ".join(one.line() for one in running))
    finally:
        for one in running:
            one.stop()
    return failures
