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
from benchmarks.real.cases import MATCHED, PAIRS
from benchmarks.training import Result, document
from matplotlib.figure import Figure

mpl.use("svg")
COLOURS = ("#000000", "#0072B2", "#009E73", "#E69F00", "#F0E442", "#D55E00", "#56B4E9", "#CC79A7")
FLOOR = 1e-14
GAIN = 0.3
"""Held-out reward a matched pair has to gain."""


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
    """Write results.json, results.md, curves.svg and mismatch.svg into `folder`."""
    order = [pair.label for pair in PAIRS]
    ordered = sorted(results, key=lambda r: (order.index(r.figures.mode), r.figures.seed))
    content = {"machine": machine(), "task": task, "missing": list(missing), "runs": [document(r) for r in ordered]}
    (folder / "results.json").write_text(json.dumps(content, indent=2) + "\n")
    (folder / "results.md").write_text(_markdown(ordered, missing, task))
    mpl.rcParams["svg.hashsalt"] = "lprl"
    _picture(ordered, order, ("reward", "held-out"), "Reward", log=False).savefig(folder / "curves.svg", metadata={"Date": None})
    title = "Rollout engine against trainer"
    _picture(ordered, order, ("k3", "logprob_diff"), title, log=True).savefig(folder / "mismatch.svg", metadata={"Date": None})


def _markdown(results: Sequence[Result], missing: Sequence[str], task: str) -> str:
    m = machine()
    head = [
        "# The real model: SmolLM2-135M-Instruct",
        "",
        f"Made by `make real` on {m['device']} (torch {m['torch']}, torch trainer and engine in one process), task {task}.",
        "Every figure is in [results.json](results.json).",
        "",
        "![reward](curves.svg)",
        "![mismatch](mismatch.svg)",
        "",
        "| training / rollout | seed | steps | reward, first -> last 10 | held-out | mean K3 | mean logprob diff | quantisation error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = [_row(r) for r in results]
    gaps = [f"\n**Not finished: {', '.join(missing)}.**"] if missing else []
    return "\n".join([*head, *rows, *gaps]) + "\n"


def _row(result: Result) -> str:
    f = result.figures
    cells = (
        f.mode,
        str(f.seed),
        str(f.steps),
        f"{f.reward_first:.3f} -> {f.reward_last:.3f}",
        f"{f.heldout_first:.3f} -> {f.heldout_last:.3f}",
        f"{f.k3_mean:.1e}",
        f"{f.logprob_diff_mean:.1e}",
        f"{f.quantization_error:.4f}",
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
