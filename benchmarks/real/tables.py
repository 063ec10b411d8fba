"""Figures and pictures of the real model's runs."""

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
from benchmarks.modes.charts import smooth
from benchmarks.real import guard
from benchmarks.real.cases import MATCHED, PAIRS
from benchmarks.training import Result, document
from matplotlib.figure import Figure

from lprl_api.spec.topology import Stability

mpl.use("svg")
COLOURS = ("#000000", "#0072B2", "#009E73", "#E69F00", "#F0E442", "#D55E00", "#56B4E9", "#CC79A7")
FLOOR = 1e-14
GAIN = 0.3
"""Held-out reward a matched pair has to gain."""
GUARD = """## The guard
Every run's K3, step by step, through the stability guard's own code with its default settings: a baseline of 5 steps, a limit of 5 times
that and of 0.5, an alarm after 3 steps above the lower one in a row."""


def device() -> str:
    """Return what ran it."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    versions = {name: version(name) for name in ("torch", "transformers")}
    return {"device": device(), "python": platform.python_version(), **versions}


def gains(results: Sequence[Result]) -> list[tuple[bool, str]]:
    """Return for every matched pair whether its worst seed gained enough."""
    found = []
    for label in MATCHED:
        worst = min((f.heldout_last - f.heldout_first for f in (r.figures for r in results) if f.mode == label), default=None)
        if worst is not None:
            found.append((worst >= GAIN, f"{label}: held-out reward {worst:+.3f} (worst seed), needs +{GAIN}"))
    return found


def write(results: Sequence[Result], missing: Sequence[str], folder: Path, task: str) -> None:
    """Write results.json, steps.csv, results.md, curves.svg and mismatch.svg into `folder`."""
    order = [pair.label for pair in PAIRS]
    ordered = sorted(results, key=lambda r: (order.index(r.figures.mode), r.figures.seed))
    content = {"machine": machine(), "task": task, "missing": list(missing), "runs": [document(r) for r in ordered]}
    (folder / "results.json").write_text(json.dumps(content, indent=2) + "\n")
    _write_steps(ordered, folder / "steps.csv")
    (folder / "results.md").write_text(markdown(folder))
    mpl.rcParams["svg.hashsalt"] = "lprl"
    _picture(ordered, order, ("reward", "held-out"), "Reward", log=False).savefig(folder / "curves.svg", metadata={"Date": None})
    title = "Rollout engine against trainer"
    _picture(ordered, order, ("k3", "logprob_diff"), title, log=True).savefig(folder / "mismatch.svg", metadata={"Date": None})


def _write_steps(results: Sequence[Result], path: Path) -> None:
    """Write what the pictures and the guard's table are made of, a line for each step."""
    with path.open("w") as lines:
        lines.write(",".join(guard.COLUMNS) + "\n")
        for result in results:
            for row in result.steps:
                figures = f"{row['reward']:.4g},{row['k3']:.3e},{row['logprob_diff']:.3e},{row['entropy']:.3e}"
                lines.write(f"{result.figures.mode},{result.figures.seed},{row['step']},{figures}\n")


def markdown(folder: Path) -> str:
    """Return results.md of what results.json, steps.csv and served.json in `folder` say; the last may be missing."""
    content = json.loads((folder / "results.json").read_text())
    m, runs, missing = content["machine"], content["runs"], content["missing"]
    head = [
        "# The real model: SmolLM2-135M-Instruct",
        "",
        f"Made by `make real` on {m['device']} (torch {m['torch']}, torch trainer and engine in one process), task {content['task']}.",
        "Every figure is in [results.json](results.json), every step in [steps.csv](steps.csv).",
        "",
        "![reward](curves.svg)",
        "![mismatch](mismatch.svg)",
        "",
        "| training / rollout | seed | steps | reward, first -> last 10 | held-out | mean K3 | mean logprob diff | quantisation error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    gaps = [f"\n**Not finished: {', '.join(missing)}.**"] if missing else []
    held = min(run["steps"] for run in runs) >= Stability().baseline_steps
    guarded = ["", GUARD, "", guard.table(folder / "steps.csv")] if held else []
    served = folder / "served.json"
    engines = ["", *served_section(json.loads(served.read_text()))] if served.exists() else []
    return "\n".join([*head, *map(_row, runs), *gaps, *guarded, *engines]) + "\n"


def _row(f: dict[str, Any]) -> str:
    cells = (
        f["mode"],
        str(f["seed"]),
        str(f["steps"]),
        f"{f['reward_first']:.3f} -> {f['reward_last']:.3f}",
        f"{f['heldout_first']:.3f} -> {f['heldout_last']:.3f}",
        f"{f['k3_mean']:.1e}",
        f"{f['logprob_diff_mean']:.1e}",
        f"{f['quantization_error']:.4f}",
    )
    return f"| {' | '.join(cells)} |"


def served_section(content: dict[str, Any]) -> list[str]:
    """Return the lines about a real engine."""
    rows, versions = content["rows"], ", ".join(sorted({row["sglang"] for row in content["rows"]}))
    tokens = [row["tokens"] for row in rows]
    return [
        "## Served by SGLang",
        f"Made by `python -m benchmarks.real.served` on {content['device']}, before any training: SGLang {versions}, this project's",
        f"trainer (BF16, head in float32), 256 prompts, at most 64 tokens each, {min(tokens)} to {max(tokens)} drawn tokens an engine.",
        "Effective sample size: of importance weights exp(trainer - engine), of single tokens and of whole answers. Every figure is in",
        "[served.json](served.json).",
        "",
        "| trainer | engine | mean K3 | mean logprob diff | p99 | max | ratio outside 1/2 to 2 | effective sample size, tokens | answers |",
        "|---|---|---|---|---|---|---|---|---|",
        *map(_served_row, rows),
    ]


def _served_row(row: dict[str, Any]) -> str:
    cells = (
        row["precision"]["training"],
        row["engine"],
        f"{row['k3']:.4f}",
        f"{row['logprob_diff']:.3f}",
        f"{row['logprob_diff_p99']:.2f}",
        f"{row['logprob_diff_max']:.1f}",
        f"{row['ratio_outside_half_to_two']:.2%}",
        f"{row['effective_sample_size_tokens']:.2f}",
        f"{row['effective_sample_size_sequences']:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def _picture(results: Sequence[Result], order: Sequence[str], columns: tuple[str, str], title: str, log: bool) -> Figure:
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    for axes, column in zip(figure.subplots(1, 2), columns, strict=True):
        for result in results:
            f, first = result.figures, result.figures.seed == 0
            x, y = _series(result, column)
            look = {"linewidth": 1.8 if first else 0.8, "alpha": 0.95 if first else 0.45, "label": f.mode if first else None}
            axes.plot(x, [max(v, FLOOR) for v in y] if log else y, color=COLOURS[order.index(f.mode)], **look)
        axes.set_title(column.replace("_", " "), fontsize=10)
        axes.set_yscale("log" if log else "linear")
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"{title} (thick: seed 0)", fontsize=12)
    return figure


def _series(result: Result, column: str) -> tuple[list[float], list[float]]:
    if column == "held-out":
        return [row["step"] for row in result.evaluations], [row["reward"] for row in result.evaluations]
    values = [row[column] for row in result.steps]
    return [row["step"] for row in result.steps], smooth(values, 5) if column == "reward" else values


def mean_k3(results: Sequence[Result], label: str) -> float:
    """Return K3 of a pair over its seeds."""
    return fmean(r.figures.k3_mean for r in results if r.figures.mode == label)
