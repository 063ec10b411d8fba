"""The two pictures: how every precision pair learns, and how far rollout and trainer are apart. One line a run, one colour a pair."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import matplotlib as mpl
from benchmarks.training import Result
from matplotlib.axes import Axes
from matplotlib.figure import Figure

mpl.use("svg")
COLOURS = {
    "bf16/bf16": "#000000",
    "bf16/fp8": "#0072B2",
    "fp8/fp8": "#009E73",
    "fp8-qat/fp8": "#E69F00",
    "fp8-qat/fp8 weight-only": "#56B4E9",
    "int4-qat/int4": "#D55E00",
    "bf16/int4": "#CC79A7",
}
"""Okabe and Ito's palette: told apart by colour-blind readers too."""
DASHES = {
    "bf16/bf16": (0, (1, 1.2)),
    "fp8/fp8": (0, (5, 1.5)),
    "fp8-qat/fp8": "-",
    "fp8-qat/fp8 weight-only": (0, (3, 1, 1, 1)),
    "int4-qat/int4": "-",
    "bf16/fp8": "-",
    "bf16/int4": "-",
}
"""The pairs without mismatch lie upon each other: the upper ones are broken, so that all are seen."""
DRAWN = ("int4-qat/int4", "bf16/int4", "bf16/fp8", "fp8-qat/fp8", "fp8-qat/fp8 weight-only", "fp8/fp8", "bf16/bf16")
"""From the bottom up."""
ROUNDING = {"k3": 1e-12, "logprob_diff": 1e-6}
"""Below these lies what the rounding of float32 alone makes."""
TITLES = {"qwen3": "dense (Qwen3)", "qwen3-moe": "mixture of experts (Qwen3-MoE)"}
WINDOW = 5
"""Training rewards are drawn as moving means over this many steps."""
FLOORS = {"k3": 1e-17, "logprob_diff": 1e-10}
"""A mismatch below is drawn here: the logarithm has no place for zero."""
Series = Callable[[Result], tuple[list[float], list[float]]]


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of each value and up to window - 1 before it."""
    return [fmean(values[max(0, i - window + 1) : i + 1]) for i in range(len(values))]


def _reward(result: Result) -> tuple[list[float], list[float]]:
    return [row["step"] for row in result.steps], smooth([row["reward"] for row in result.steps], WINDOW)


def _heldout(result: Result) -> tuple[list[float], list[float]]:
    return [row["step"] for row in result.evaluations], [row["reward"] for row in result.evaluations]


def _column(name: str) -> Series:
    def series(result: Result) -> tuple[list[float], list[float]]:
        return [row["step"] for row in result.steps], [max(row[name], FLOORS[name]) for row in result.steps]

    return series


def _lines(axes: Axes, results: Sequence[Result], series: Series, marker: str | None = None) -> None:
    """Draw one architecture's runs: seed 0 strong, further seeds thin."""
    for result in results:
        first = result.figures.seed == 0
        x, y = series(result)
        mode = result.figures.mode
        width, alpha = (1.8, 0.95) if first else (0.8, 0.45)
        label, dots = (mode, marker) if first else (None, None)
        style = DASHES[mode] if first else "-"
        axes.plot(x, y, color=COLOURS[mode], linestyle=style, label=label, marker=dots, markersize=4, linewidth=width, alpha=alpha)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _grid(results: Sequence[Result], columns: Sequence[tuple[str, Series, str | None]], title: str, log: bool) -> Figure:
    """Return rows = architectures, columns = quantities, with one legend for all."""
    architectures = [name for name in TITLES if any(r.figures.architecture == name for r in results)]
    figure = Figure(figsize=(11, 1.2 + 3.3 * len(architectures)), layout="constrained")
    grid = figure.subplots(len(architectures), len(columns), squeeze=False, sharex=True, sharey="col")
    for row, architecture in zip(grid, architectures, strict=True):
        chosen = [r for r in results if r.figures.architecture == architecture]
        for axes, (name, series, marker) in zip(row, columns, strict=True):
            _lines(axes, chosen, series, marker)
            axes.set_title(f"{name}, {TITLES[architecture]}", fontsize=10)
            axes.set_yscale("log" if log else "linear")
            if not log:
                axes.set_ylim(-0.02, 1.04)
    for axes in grid[-1]:
        axes.set_xlabel("step")
    named = {label: line for axes in grid.flat for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    shown = [mode for mode in COLOURS if mode in named]
    figure.legend(
        [named[mode] for mode in shown],
        shown,
        loc="outside lower center",
        ncols=len(COLOURS),
        frameon=False,
        title="training / rollout precision",
    )
    figure.suptitle(title, fontsize=12)
    return figure


def _mark_rounding(axes: Axes, limit: float) -> None:
    """Shade where only float32 rounding is left."""
    low, high = axes.get_ylim()
    axes.axhspan(low, limit, color="#888888", alpha=0.12, linewidth=0)
    axes.text(0.99, limit, "float32 rounding below this line", transform=axes.get_yaxis_transform(), fontsize=8, ha="right", va="bottom")
    axes.set_ylim(low, high)


def draw(results: Sequence[Result], folder: Path) -> None:
    """Write curves.svg and mismatch.svg into `folder`."""
    # Equal results give equal files: no date, and ids of elements that do not change from run to run.
    mpl.rcParams["svg.hashsalt"] = "lprl"
    ordered = sorted(results, key=lambda r: (DRAWN.index(r.figures.mode), -r.figures.seed))
    curves = _grid(
        ordered,
        (("training reward, mean of 5 steps", _reward, None), ("greedy reward on held-out prompts", _heldout, "o")),
        "Reward of every precision pair (thick: seed 0, thin: further seeds)",
        log=False,
    )
    curves.savefig(folder / "curves.svg", metadata={"Date": None})
    mismatch = _grid(
        ordered,
        (("K3", _column("k3"), None), ("mean |log-probability difference|", _column("logprob_diff"), None)),
        "Rollout engine against trainer, logarithmic (thick: seed 0, thin: further seeds)",
        log=True,
    )
    for axes in mismatch.axes:
        _mark_rounding(axes, ROUNDING["k3" if axes.get_title().startswith("K3") else "logprob_diff"])
    mismatch.savefig(folder / "mismatch.svg", metadata={"Date": None})
