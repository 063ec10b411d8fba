"""Two pictures of the runs that compare the engines: rewards, and how far each engine is from the trainer."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from benchmarks.backends.cases import PAIRS
from benchmarks.backends.tables import MODELS, Shown
from benchmarks.modes.charts import smooth
from matplotlib.axes import Axes
from matplotlib.figure import Figure

mpl.use("svg")
COLOURS = {("torch", 0): "#000000", ("sglang", 0): "#D55E00", ("torch", 1): "#56B4E9", ("sglang", 1): "#0072B2"}
"""Of engine and staleness."""
WINDOW = 5
"""Rewards are drawn as moving means over this many steps."""
FLOOR = 1e-15
ROWS = (("digit", "qwen3"), ("digit", "qwen3-moe"), ("tool", "qwen3"))
"""Task and model of each row."""


def _draw(axes: Axes, one: Shown, column: str) -> None:
    case, values = one.case, [row[column] for row in one.steps]
    shown = smooth(values, WINDOW) if column == "reward" else [max(value, FLOOR) for value in values]
    label = f"{case.engine}, staleness {case.staleness}"
    line = "-" if case.engine == "sglang" else (0, (4, 1.5))
    colour, steps = COLOURS[case.engine, case.staleness], [row["step"] for row in one.steps]
    axes.plot(steps, shown, color=colour, linestyle=line, linewidth=1.5, label=label)


def _picture(found: Sequence[Shown], column: str, title: str) -> Figure:
    rows = [row for row in ROWS if any((one.case.task, one.case.architecture) == row for one in found)]
    figure = Figure(figsize=(13, 1.0 + 2.6 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(PAIRS), squeeze=False, sharex="row", sharey=True)
    for line, row in zip(grid, rows, strict=True):
        for axes, pair in zip(line, PAIRS, strict=True):
            _fill(axes, [one for one in found if (one.case.task, one.case.architecture, one.case.pair) == (*row, pair)], column)
            axes.set_title(f"{pair}, {MODELS[row[1]]}, {row[0]}", fontsize=9)
    named = {label: line for axes in grid.flat for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(title, fontsize=12)
    return figure


def _fill(axes: Axes, found: Sequence[Shown], column: str) -> None:
    for one in found:
        _draw(axes, one, column)
    if not found:
        axes.text(0.5, 0.5, "not run", transform=axes.transAxes, ha="center", color="#888888")
    axes.set_yscale("linear" if column == "reward" else "log")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def draw(found: Sequence[Shown], folder: Path) -> None:
    """Write curves.svg and mismatch.svg into `folder`."""
    # Equal results give equal files: no date, and ids of elements that do not change from run to run.
    mpl.rcParams["svg.hashsalt"] = "lprl"
    curves = _picture(found, "reward", f"Training reward by step, mean of {WINDOW} steps")
    curves.savefig(folder / "curves.svg", metadata={"Date": None})
    _picture(found, "k3", "K3 of engine against trainer by step, logarithmic").savefig(folder / "mismatch.svg", metadata={"Date": None})
