"""A curve as a PNG by matplotlib, where that is installed: `python -m lprl_cli.report.plot < request`, a process of its own.

The request is JSON: {"title": ..., "file": where to write, "series": [[label, [[step, value or null], ...]], ...]}.
"""

import json
import sys
from typing import Any

NOT_INSTALLED = 3
"""Exit code where there is no matplotlib."""


def plot(title: str, file: str, series: list[tuple[str, list[tuple[float, float | None]]]]) -> None:
    """Draw curves over steps into `file`. Raises ModuleNotFoundError without matplotlib, and whatever it raises."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(7, 3.6), dpi=150, layout="tight")
    axes = figure.subplots()
    for label, points in series:
        known = [(step, value) for step, value in points if value is not None]
        axes.plot([step for step, _ in known], [value for _, value in known], label=label, linewidth=1.8)
    axes.set(xlabel="step", ylabel="reward", title=title)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(file)


def main() -> int:
    """Draw what stdin asks for; returns the exit code."""
    try:
        plot(**json.load(sys.stdin))
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        return NOT_INSTALLED
    return 0


if __name__ == "__main__":
    sys.exit(main())
