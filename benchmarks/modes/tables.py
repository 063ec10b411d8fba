"""results.json, results.md and the bars the runs have to pass."""

import json
import math
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.training import Result, document

HELDOUT_BAR = 0.8
QAT, PLAIN_INT4, FP8_QAT = "int4-qat/int4", "bf16/int4", "fp8-qat/fp8"
WEIGHT_ONLY = f"{FP8_QAT} weight-only"
ORDER = ("bf16/bf16", "bf16/fp8", "fp8/fp8", FP8_QAT, WEIGHT_ONLY, QAT, PLAIN_INT4)


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "accelerator": "none, CPU only",
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "runs_at_a_time": 2,
        "threads_per_run": 1,
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def k3_of(results: Sequence[Result], architecture: str, mode: str) -> float:
    """Return K3 averaged over the steps of all seeds; not a number where no run is finished."""
    found = [r.figures.k3_mean for r in results if (r.figures.architecture, r.figures.mode) == (architecture, mode)]
    return fmean(found) if found else math.nan


def bars(results: Sequence[Result]) -> list[tuple[bool, str]]:
    """Return every bar as (passed, what was found)."""
    found = [
        (
            r.figures.heldout_last > HELDOUT_BAR,
            f"{r.figures.architecture} {r.figures.mode} seed {r.figures.seed}: "
            f"held-out reward {r.figures.heldout_last:.3f}, needs > {HELDOUT_BAR}",
        )
        for r in results
    ]
    for architecture in sorted({r.figures.architecture for r in results}):
        qat, plain = (k3_of(results, architecture, mode) for mode in (QAT, PLAIN_INT4))
        found.append((qat < plain, f"{architecture}: mean K3 {QAT} {qat:.2e}, needs to be below {PLAIN_INT4} {plain:.2e}"))
    return found


def write(results: Sequence[Result], missing: Sequence[str], folder: Path) -> None:
    """Write results.json and results.md into `folder`; both name the runs that are missing."""
    ordered = sorted(results, key=lambda r: (r.figures.architecture, ORDER.index(r.figures.mode), r.figures.seed))
    judged = [{"passed": passed, "what": text} for passed, text in bars(ordered)]
    content = {"machine": machine(), "bars": judged, "missing": list(missing), "runs": [document(r) for r in ordered]}
    (folder / "results.json").write_text(json.dumps(content, indent=2) + "\n")
    (folder / "results.md").write_text(_markdown(ordered, missing))


HEAD = """# Precision pairs side by side

Made by `make modes`: every example pair, from random initial weights, {steps} steps.
CPU only ({cpu}, {cores} cores, torch {torch}, two runs at a time with one thread each), low precision emulated bit for bit:
rewards and mismatches mean something, speeds say nothing about GPUs. Every figure is in [results.json](results.json).

![reward and evaluation](curves.svg)
![mismatch](mismatch.svg)

| model | training / rollout | seed | reward, first -> last | held-out, greedy | mean K3 | mean logprob diff | quantisation error | tokens/s | seconds |
|---|---|---|---|---|---|---|---|---|---|
"""  # noqa: E501
FOOT = """
Reward: step 1, and mean of the last 10 steps. Held-out: before the first and after the last step, 256 prompts that are not trained on.
K3 and logprob diff: mean over all steps. Quantisation error: relative RMS of served against BF16 weights at the last sync.
Tokens/s: generated tokens over the time of the whole step, median. Seconds: the whole process, import to export.
Nothing else is kept off the machine: on a busy one both are worse than on an idle one, and differ between runs for that alone.

## K3 averaged over steps and seeds
| model | int4-qat/int4 | bf16/int4 | seeds |
|---|---|---|---|
"""


def _markdown(results: Sequence[Result], missing: Sequence[str]) -> str:
    steps = " or ".join(str(n) for n in sorted({r.figures.steps for r in results}))
    comparison = [_k3_row(results, name) for name in sorted({r.figures.architecture for r in results})]
    gaps = f"\n**Not finished: {', '.join(missing)}.**\n" if missing else ""
    return HEAD.format(steps=steps, **machine()) + "".join(map(_row, results)) + gaps + FOOT + "".join(comparison)


def _row(result: Result) -> str:
    f = result.figures
    reward, heldout = f"{f.reward_first:.3f} -> {f.reward_last:.3f}", f"{f.heldout_first:.3f} -> {f.heldout_last:.3f}"
    cells = (f.architecture, f.mode, str(f.seed), reward, heldout, f"{f.k3_mean:.1e}", f"{f.logprob_diff_mean:.1e}")
    return f"| {' | '.join(cells)} | {f.quantization_error:.4f} | {f.tokens_per_second:.0f} | {f.seconds:.0f} |\n"


def _k3_row(results: Sequence[Result], architecture: str) -> str:
    seeds = sum((r.figures.architecture, r.figures.mode) == (architecture, QAT) for r in results)
    qat, plain = (k3_of(results, architecture, mode) for mode in (QAT, PLAIN_INT4))
    return f"| {architecture} | {qat:.1e} | {plain:.1e} | {seeds} |\n"
