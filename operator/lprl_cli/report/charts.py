"""Line charts as SVG text: axes with round numbers, several series, colours from CSS variables so that dark mode works."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 38
MAX_POINTS = 600
"""Points drawn per series; longer ones are averaged over equal stretches."""
COLORS = 10
"""CSS defines --s0 .. --s9."""


@dataclass(frozen=True)
class Series:
    """One line: (x, y) points; None and non-finite y leave a gap."""

    label: str
    points: Sequence[tuple[float, float | None]]
    dashed: bool = False


@dataclass(frozen=True)
class Axis:
    """One axis: its range and the places of its ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies, 0 at the low end and 1 at the high end."""
        if self.log:
            return (math.log10(value) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        return (value - self.low) / (self.high - self.low)


def linear_axis(low: float, high: float, count: int = 5) -> Axis:
    """Return an axis whose ticks are 1, 2 or 5 times a power of ten and enclose the data."""
    if high <= low:
        low, high = (low - abs(low) * 0.1, high + abs(low) * 0.1) if low else (0.0, 1.0)
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axis(first * step, last * step, tuple(i * step for i in range(first, last + 1)))


def log_axis(low: float, high: float) -> Axis:
    """Return an axis over whole decades."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    every = max(1, (last - first) // 6)
    return Axis(10.0**first, 10.0**last, tuple(10.0**e for e in range(first, last + 1, every)), log=True)


def thin(points: Sequence[tuple[float, float | None]]) -> list[tuple[float, float | None]]:
    """Average neighbouring points until at most MAX_POINTS are left."""
    size = math.ceil(len(points) / MAX_POINTS)
    if size <= 1:
        return list(points)
    found: list[tuple[float, float | None]] = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        values = [y for _, y in part if y is not None]
        found.append((part[len(part) // 2][0], sum(values) / len(values) if values else None))
    return found


def finite(value: Any) -> float | None:
    """Return a number, None for anything a chart cannot place."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


def tick_text(value: float) -> str:
    """Return a tick's label."""
    if value == 0:
        return "0"
    if abs(value) >= 1e5 or abs(value) < 1e-3:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:,.6g}"


def line_chart(title: str, series: Sequence[Series], x_label: str = "step", log: bool = False) -> str:
    """Return an SVG of the series; a text when there is nothing to draw. Screen readers get each series' first and last value."""
    drawn = [Series(s.label, thin([(x, finite(y)) for x, y in s.points]), s.dashed) for s in series]
    values = [y for s in drawn for _, y in s.points if y is not None and (not log or y > 0)]
    if not values:
        return f'<p class="empty">{escape(title)}: not measured in this run</p>'
    xs = [x for s in drawn for x, _ in s.points]
    across, up = linear_axis(min(xs), max(xs), 6), log_axis(min(values), max(values)) if log else linear_axis(min(values), max(values))
    across = Axis(min(xs), max(max(xs), min(xs) + 1), tuple(t for t in across.ticks if min(xs) <= t <= max(xs)))
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" class="chart" aria-label="{escape(_spoken(title, drawn), quote=True)}">',
        *_grid(across, up),
        f'<text class="label" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>',
    ]
    for number, one in enumerate(drawn):
        parts.append(_line(one, number, across, up))
    return "".join([*parts, "</svg>"])


def _spoken(title: str, series: Sequence[Series]) -> str:
    texts = []
    for one in series:
        values = [y for _, y in one.points if y is not None]
        if values:
            texts.append(f"{one.label} from {tick_text(float(f'{values[0]:.3g}'))} to {tick_text(float(f'{values[-1]:.3g}'))}")
    return f"{title}: {'; '.join(texts)}"


def _x(axis: Axis, value: float) -> float:
    return LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM)


def _grid(across: Axis, up: Axis) -> list[str]:
    found = []
    for tick in up.ticks:
        y = _y(up, tick)
        found.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        found.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick_text(tick)}</text>')
    for tick in across.ticks:
        x = _x(across, tick)
        found.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{tick_text(tick)}</text>')
    return found


def _line(series: Series, number: int, across: Axis, up: Axis) -> str:
    """Draw one series; a lone point between gaps becomes a dot."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in series.points:
        if y is None or (up.log and y <= 0):
            runs.append([])
        else:
            runs[-1].append((_x(across, x), _y(up, y)))
    color = f"var(--s{number % COLORS})"
    dash = ' stroke-dasharray="6 4"' if series.dashed else ""
    found = [f"<g><title>{escape(series.label)}</title>"]
    for run in runs:
        if len(run) > 1:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in run)
            found.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" stroke-linejoin="round"{dash} points="{path}"/>')
        elif run:
            found.append(f'<circle cx="{run[0][0]:.1f}" cy="{run[0][1]:.1f}" r="3" fill="{color}"/>')
    return "".join([*found, "</g>"])


def legend(labels: Sequence[str]) -> str:
    """Return the legend of a group of charts."""
    if len(labels) < 2:
        return ""
    items = "".join(f'<li><span style="background:var(--s{i % COLORS})"></span>{escape(x)}</li>' for i, x in enumerate(labels))
    return f'<ul class="legend">{items}</ul>'


def bar(parts: Sequence[tuple[str, float]], limit: float, label: str) -> str:
    """Return a stacked horizontal bar; `limit` is the full width unless the parts are longer (then a line marks the limit)."""
    total = sum(size for _, size in parts)
    full = max(total, limit) or 1.0
    found = [f'<svg viewBox="0 0 {WIDTH} 22" class="bar" role="img" aria-label="{escape(label, quote=True)}" preserveAspectRatio="none">']
    found.append(f'<rect class="track" x="0" y="3" width="{WIDTH}" height="16" rx="3"/>')
    at = 0.0
    for number, (name, size) in enumerate(parts):
        width = size / full * WIDTH
        title = f"<title>{escape(name)}: {size / 2**30:.2f} GiB</title>"
        found.append(f'<rect x="{at:.1f}" y="3" width="{width:.1f}" height="16" fill="var(--s{number % COLORS})">{title}</rect>')
        at += width
    if 0 < limit < total:
        x = limit / full * WIDTH
        found.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="22"/>')
    return "".join([*found, "</svg>"])
