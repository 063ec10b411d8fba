"""The reward curve as a file: SVG always, PNG where matplotlib is installed (asked of a separate process)."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lprl_cli.report.charts import Series, line_chart

LIGHT = {"--s0": "#2f6fed", "--s1": "#d9480f", "--s2": "#2b8a3e", "--s3": "#9c36b5", "--s4": "#b08900"}
LIGHT |= {"--s5": "#0c8599", "--s6": "#c2255c", "--s7": "#5f3dc4", "--s8": "#66800b", "--s9": "#868e96"}
_STYLE = (
    "<style>text{font:11.5px system-ui,sans-serif;fill:#5c6370}.grid{stroke:#e3e5e8}</style>"
    '<rect width="100%" height="100%" fill="#ffffff"/>'
)
_PLOT = """
import json, sys
import matplotlib
matplotlib.use("Agg")
from matplotlib import pyplot as plt
job = json.load(sys.stdin)
figure, axes = plt.subplots(figsize=(7, 3.6), dpi=150)
for label, points in job["series"]:
    points = [p for p in points if p[1] is not None]
    axes.plot([p[0] for p in points], [p[1] for p in points], label=label, linewidth=1.8)
axes.set_xlabel("step"); axes.set_ylabel("reward"); axes.set_title(job["title"]); axes.grid(alpha=0.25)
axes.legend(frameon=False)
figure.tight_layout(); figure.savefig(job["file"])
"""


def write_pictures(title: str, series: Sequence[Series], folder: Path, stem: str = "reward") -> list[Path]:
    """Write STEM.svg and, where matplotlib is there, STEM.png; returns what was written."""
    svg = line_chart(title, series)
    if not svg.startswith("<svg"):
        return []
    for name, color in LIGHT.items():
        svg = svg.replace(f"var({name})", color)
    end = svg.index(">") + 1
    head = svg[:end].replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" width="840" height="390" ', 1)
    written = [folder / f"{stem}.svg"]
    written[0].write_text(f"{head}{_STYLE}{svg[end:]}\n", encoding="utf-8")
    png = folder / f"{stem}.png"
    request = json.dumps({"title": title, "file": str(png), "series": [[s.label, list(s.points)] for s in series]})
    done = subprocess.run([sys.executable, "-c", _PLOT], input=request, text=True, capture_output=True, timeout=120, check=False)
    if done.returncode == 0:
        written.append(png)
    elif "No module named 'matplotlib'" not in done.stderr:
        why = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        print(f"warning: no {png.name}: {why}", file=sys.stderr)
    return written
