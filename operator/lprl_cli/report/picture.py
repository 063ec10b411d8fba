"""The reward curve as a file: SVG always, PNG where matplotlib is installed (asked of a separate process)."""

import json
import subprocess
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

from lprl_cli.report import plot
from lprl_cli.report.charts import COLORS, HEIGHT, LEFT, WIDTH, Series, line_chart

LIGHT = {"--s0": "#2f6fed", "--s1": "#d9480f", "--s2": "#2b8a3e", "--s3": "#9c36b5", "--s4": "#b08900"}
LIGHT |= {"--s5": "#0c8599", "--s6": "#c2255c", "--s7": "#5f3dc4", "--s8": "#66800b", "--s9": "#868e96"}
KEY = 40
"""Height of title and legend above a chart that stands alone."""
_STYLE = (
    "<style>text{font:11.5px system-ui,sans-serif;fill:#5c6370}.grid{stroke:#e3e5e8}</style>"
    '<rect width="100%" height="100%" fill="#ffffff"/>'
)


def write_svg(title: str, series: Sequence[Series], file: Path, x_label: str = "step", *, keyed: bool = False) -> bool:
    """Write a chart as a file that needs no page around it, `keyed` with title and legend in it; False when there is nothing to draw."""
    svg = line_chart(title, series, x_label)
    if not svg.startswith("<svg"):
        return False
    end = svg.index(">") + 1
    size = 'width="840" height="390" '
    head, inside = svg[:end], _STYLE + svg[end:]
    if keyed:
        head = head.replace(f'viewBox="0 0 {WIDTH} {HEIGHT}"', f'viewBox="0 {-KEY} {WIDTH} {HEIGHT + KEY}"', 1)
        size, inside = f'width="840" height="{(HEIGHT + KEY) * 840 // WIDTH}" ', _key(title, series, inside)
    svg = head.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" {size}', 1) + inside
    for name, color in LIGHT.items():
        svg = svg.replace(f"var({name})", color)
    file.write_text(f"{svg}\n", encoding="utf-8")
    return True


def _key(title: str, series: Sequence[Series], inside: str) -> str:
    """Return the chart with its title and what its lines are above it."""
    inside = inside.replace('<rect width="100%" height="100%"', f'<rect y="{-KEY}" width="100%" height="{HEIGHT + KEY}"', 1)
    found = [f'<text x="{LEFT}" y="{18 - KEY}">{escape(title)}</text>']
    at = LEFT
    for number, one in enumerate(series):
        color = f"var(--s{number % COLORS})"
        found.append(f'<rect x="{at}" y="{28 - KEY}" width="14" height="3" fill="{color}"/>')
        found.append(f'<text x="{at + 20}" y="{34 - KEY}">{escape(one.label)}</text>')
        at += 40 + 7 * len(one.label)
    return inside.replace("</svg>", f"{''.join(found)}</svg>")


def write_pictures(title: str, series: Sequence[Series], folder: Path, stem: str = "reward") -> list[Path]:
    """Write STEM.svg and, where matplotlib is there, STEM.png; returns what was written."""
    written = [folder / f"{stem}.svg"]
    if not write_svg(title, series, written[0]):
        return []
    png = folder / f"{stem}.png"
    request = json.dumps({"title": title, "file": str(png), "series": [[s.label, list(s.points)] for s in series]})
    line = [sys.executable, "-m", plot.__name__]
    done = subprocess.run(line, input=request, text=True, capture_output=True, timeout=120, check=False)
    if done.returncode == 0:
        written.append(png)
    elif done.returncode != plot.NOT_INSTALLED:
        why = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        print(f"warning: no {png.name}: {why}", file=sys.stderr)
    return written
