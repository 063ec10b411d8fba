"""What the run's conversion does to the model's answers: figures from status, and per layer from the file beside the converted folder."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from lprl_cli.report.charts import Series, legend, line_chart
from lprl_cli.report.style import cell, table
from lprl_cli.runfolder import RunFolder, read_object

NAMES = {"layer": "whole layer", "attention": "attention", "mlp": "MLP or experts"}
TITLE = "Mean KL brought back by leaving a part at the source's weights, %"
FIGURES = (
    ("klMean", "mean KL(source || converted), nats a token"),
    ("klP99", "99th percentile of it"),
    ("top1Agreement", "share of tokens with the same likeliest one"),
    ("nllChange", "change of the mean negative log-likelihood, nats"),
    ("positions", "tokens"),
)


def answers_section(found: RunFolder) -> str:
    """Return heading, figures, advice and chart; nothing where the job did not ask for them."""
    said = (found.status().get("conversion") or {}).get("answers")
    if not said:
        return ""
    rows = [[cell(label), cell(said.get(key, ""))] for key, label in FIGURES]
    advice = "".join(f"<li>{escape(str(text))}</li>" for text in said.get("advice", ()))
    parts = ["<h2>Answers after the conversion</h2>", table([("figure", False), ("value", True)], rows), f"<ul>{advice}</ul>"]
    file = Path(found.local(str(said["file"]))) if said.get("file") and found.state is not None else None
    if file is not None and file.is_file():
        series = sensitivity_series(read_object(file).get("answers") or {})
        parts += [legend([one.label for one in series]), line_chart(TITLE, series, "layer")] if series else []
    return "".join(parts)


def sensitivity_series(answers: Mapping[str, Any]) -> list[Series]:
    """Return what each layer brings back of the mean KL, per cent: one line for whole layers, attention and MLP each."""
    parts = (answers.get("sensitivity") or {}).get("parts") or []
    found = []
    for name, label in NAMES.items():
        points = [(float(p["layer"]), 100.0 * p["recovered"]) for p in parts if p["part"] == name]
        if points:
            found.append(Series(label, points))
    return found
