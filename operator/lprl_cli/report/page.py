"""A run, or several side by side, as one HTML page."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from lprl_api.errors import UserError
from lprl_cli.live import number
from lprl_cli.report import sections
from lprl_cli.report.answers import answers_section
from lprl_cli.report.charts import Series, finite
from lprl_cli.report.episodes import episodes_section
from lprl_cli.report.picture import write_pictures
from lprl_cli.report.plan import plan_section
from lprl_cli.report.rewards import rewards_section
from lprl_cli.report.style import cell, page, table
from lprl_cli.runfolder import RunFolder


def render(found: RunFolder) -> str:
    """Return the page of one run."""
    rows, evaluations = found.rows("metrics.jsonl"), found.rows("evaluations.jsonl")
    status = found.status()
    phase = str(status.get("phase", ""))
    tone = "ok" if phase == "Succeeded" else "bad" if phase == "Failed" else ""
    precision = str(status.get("precision", ""))
    effective = status.get("effectivePrecision")
    served = f", serving {effective} since the guard acted" if effective and effective != precision else ""
    head = (
        f'<h1>{escape(found.name)}</h1><p class="sub"><span class="{tone}">{escape(phase)}</span> {escape(precision + served)} '
        f"{escape(str(status.get('message', '')))}</p>"
    )
    parts = [
        head,
        sections.tiles(found, rows, evaluations),
        rewards_section(found),
        "<h2>Curves</h2>" + sections.curves([(found.name, rows, evaluations)]),
        episodes_section(found, rows),
        "<h2>Plan</h2>" + plan_section(found),
        "<h2>Timeline</h2>" + sections.timeline(found.events()),
        answers_section(found),
        "<h2>Quantisation error</h2>" + sections.quantization(found),
        "<h2>Checkpoints</h2>" + sections.checkpoints(found),
        "<h2>Configuration</h2>" + sections.configuration(found),
    ]
    return page(f"lprl: {found.name}", "".join(parts))


def label_of(found: RunFolder) -> str:
    """Return how a run is named in a comparison."""
    return found.name if found.state is None or found.state.name == found.name else f"{found.state.name}"


def render_comparison(runs: Sequence[RunFolder], title: str) -> str:
    """Return the page that lays several runs over each other.

    Raises:
        UserError: a run has no metrics.

    """
    loaded = [(label_of(r), r.rows("metrics.jsonl"), r.rows("evaluations.jsonl")) for r in runs]
    for run, (_, rows, _) in zip(runs, loaded, strict=True):
        if not rows:
            raise UserError(f"{run.run}: no metrics yet", "compare runs that made at least one step")
    body = []
    for run, (label, rows, evaluations) in zip(runs, loaded, strict=True):
        k3 = [v for _, v in sections.points(rows, "k3") if v is not None]
        mean = sum(k3) / len(k3) if k3 else None
        best = finite(evaluations[-1].get("reward")) if evaluations else None
        cells = [cell(label), cell(run.status().get("precision", "")), cell(rows[-1]["step"], float(rows[-1]["step"]))]
        for value, digits in ((finite(rows[-1].get("reward")), 3), (best, 3), (mean, 6)):
            cells.append(cell(number(value, digits), value if value is not None else -1.0))
        body.append(cells)
    head = [("run", False), ("precision", False), ("steps", True), ("last reward", True), ("held-out reward", True), ("mean K3", True)]
    parts = [f'<h1>{escape(title)}</h1><p class="sub">{len(runs)} runs</p>', table(head, body, sortable=True), "<h2>Curves</h2>"]
    return page(f"lprl: {title}", "".join([*parts, sections.curves(loaded)]))


def reward_series(found: RunFolder, prefix: str = "") -> list[Series]:
    """Return training and held-out reward."""
    held_out = sections.points(found.rows("evaluations.jsonl"), "reward")
    series = [Series(f"{prefix}training", sections.points(found.rows("metrics.jsonl"), "reward"))]
    return [*series, Series(f"{prefix}held out", held_out, dashed=True)] if held_out else series


def write_report(found: RunFolder, file: Path | None = None) -> dict[str, Path]:
    """Write report.html and the reward curve into the run folder (or `file` and beside it); returns them by what they are."""
    target = file or found.run / "report.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(render(found), encoding="utf-8")
    written = {"report": target}
    pictures = write_pictures(f"{found.name}: mean reward per step", reward_series(found), target.parent)
    if pictures:
        written["reward curve"] = pictures[-1]
    return written
