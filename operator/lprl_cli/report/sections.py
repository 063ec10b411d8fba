"""The report's sections, each from the files a run leaves."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from lprl_api.errors import UserError
from lprl_cli.live import duration, number
from lprl_cli.report.charts import Series, finite, legend, line_chart
from lprl_cli.report.style import cell, table
from lprl_cli.runfolder import BROKEN, RunFolder, read_object

CURVES: tuple[tuple[str, str, tuple[tuple[str, str], ...], bool], ...] = (
    ("Mean training reward", "", (("reward", "reward"),), False),
    ("Training/rollout mismatch, K3", "log scale", (("k3", "k3"),), True),
    ("Mean |log p train - log p rollout|", "log scale", (("logprob_diff", "|dlogp|"),), True),
    ("Entropy", "nats", (("entropy", "entropy"),), False),
    ("Throughput", "tokens/s", (("tokens_per_second", "tokens/s"),), False),
    ("Seconds per step", "s", (("step_seconds", "step"), ("generate_seconds", "generate"), ("train_seconds", "train")), False),
    ("Idle seconds per step", "s", (("trainer_idle_seconds", "trainer"), ("engines_idle_seconds", "engines")), False),
    ("Staleness of samples", "steps", (("staleness_mean", "mean"), ("staleness_max", "oldest")), False),
    ("Weight sync", "s", (("sync_seconds", "sync"),), False),
    ("Loss", "", (("loss", "loss"), ("pg_loss", "policy gradient")), False),
    ("Gradient norm", "", (("grad_norm", "gradient norm"),), False),
    ("Clipped fraction", "", (("clip_fraction", "ratio"), ("tis_clip_fraction", "correction")), False),
    ("Quantisation error of the synced weights", "relative RMS", (("quantization_error", "error"),), False),
    ("Response length", "tokens", (("response_tokens", "tokens"),), False),
)


def points(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float | None]]:
    """Return (step, value) of one metric."""
    return [(float(r["step"]), finite(r.get(key))) for r in rows if finite(r.get("step")) is not None]


def tiles(found: RunFolder, rows: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]]) -> str:
    """The numbers people look for first."""
    status = found.status()
    last = rows[-1] if rows else {}
    k3 = [v for _, v in points(rows, "k3") if v is not None]
    tokens = [v for _, v in points(rows, "tokens_per_second") if v is not None]
    items = [
        ("steps", f"{last.get('step', 0)}"),
        ("last reward", number(last.get("reward"))),
        (_held_out(evaluations), number(evaluations[-1].get("reward")) if evaluations else "-"),
        ("mean K3", number(sum(k3) / len(k3) if k3 else None, 5)),
        ("tokens/s, mean", number(sum(tokens) / len(tokens) if tokens else None, 0)),
        ("attempts", str(max((int(r.get("attempt", 0)) for r in rows), default=status.get("attempt", 0)))),
        ("wall time", duration(_seconds(status.get("startTime"), status.get("completionTime")))),
    ]
    return '<div class="tiles">' + "".join(f"<div class=tile><b>{escape(v)}</b><span>{escape(k)}</span></div>" for k, v in items) + "</div>"


def _held_out(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Return the tile's name with what the engines computed with."""
    served = evaluations[-1].get("served") if evaluations else None
    return f"held-out reward ({served})" if served else "held-out reward"


def _seconds(start: str | None, end: str | None) -> float | None:
    if not start or not end:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def curves(runs: Sequence[tuple[str, Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]]) -> str:
    """Charts of one run, or of several laid over each other; `runs` are (label, metric rows, evaluation rows)."""
    several = len(runs) > 1
    found = [legend([label for label, _, _ in runs])]
    held_out = [Series(label, points(evaluations, "reward")) for label, _, evaluations in runs]
    charts: list[tuple[str, str, list[str]]] = [("Held-out reward", line_chart("Held-out reward", held_out), [])]
    for title, unit, keys, log in CURVES:
        used = keys[:1] if several else keys
        series = [
            Series(label if several else name, points(rows, key))
            for label, rows, _ in runs
            for key, name in used
            if several or any(v is not None for _, v in points(rows, key))
        ]
        head = f"{title} ({unit})" if unit else title
        charts.append((head, line_chart(title, series, log=log), [] if several else [s.label for s in series]))
    charts.insert(0, charts.pop(1))
    cards = [f"<section class=card><h3>{escape(title)}</h3>{legend(labels)}{svg}</section>" for title, svg, labels in charts]
    return "".join(found) + '<div class="grid2">' + "".join(cards) + "</div>"


def timeline(events: Sequence[Mapping[str, Any]]) -> str:
    """Phases and events with the time since the first one."""
    if not events:
        return '<p class="empty">No events were kept for this run.</p>'
    first = datetime.fromisoformat(events[0]["time"])
    rows = []
    for event in events:
        since = (datetime.fromisoformat(event["time"]) - first).total_seconds()
        color = "var(--accent)" if "phase" in event else "var(--bad)" if event.get("type") == "Warning" else "var(--rule)"
        what = f'<span class="mark" style="background:{color}"></span>' + (
            f"<b>{escape(str(event['phase']))}</b>" if "phase" in event else escape(str(event.get("reason", "")))
        )
        rows.append(
            [cell(f"{since:,.1f} s", since), cell(event.get("attempt", ""), None), cell("", raw=what), cell(event.get("message", ""))]
        )
    return table([("since start", True), ("attempt", False), ("phase or event", False), ("message", False)], rows)


def quantization(found: RunFolder) -> str:
    """Per-tensor error of every conversion the run used, worst first."""
    parts = []
    for path in conversion_reports(found):
        report = read_object(path)
        tensors = [t for t in _tensor_rows(report) if finite(t.get("error")) is not None]
        tensors.sort(key=lambda t: -float(t["error"]))
        rows = [[cell(t["name"]), cell(t["format"]), cell(t["shape"]), cell(number(t["error"], 5), float(t["error"]))] for t in tensors]
        head = [("tensor", False), ("format", False), ("shape", False), ("relative RMS error", True)]
        body = table(head, rows[:500], sortable=True)
        more = f"<p class=empty>{len(rows) - 500} more in {escape(str(path))}</p>" if len(rows) > 500 else ""
        parts.append(f"<h3>{escape(str(path.parent.name))}: {len(rows)} tensors, worst first</h3>{body}{more}")
    return "".join(parts) or '<p class="empty">Nothing was converted: the source is served as it is.</p>'


def _tensor_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return name, format, shape and error of each tensor of a conversion report."""
    found = []
    for item in report.get("tensors", ()):
        shape = "x".join(str(n) for n in item.get("shape", ()))
        found.append({"name": item["name"], "format": item.get("format", ""), "shape": shape, "error": item.get("relativeRmsError")})
    return found


def conversion_reports(found: RunFolder) -> list[Path]:
    """Return the conversion reports of the job's content keys."""
    if found.state is None:
        return []
    paths = []
    for job in sorted(found.state.glob("objects/Job/lprl-convert-*.json")):
        try:
            notes = read_object(job)["spec"]["template"]["metadata"]["annotations"]
            target = json.loads(notes["lprl.dev/convert.json"])["target"]
            path = Path(found.local(f"{target['volume']}:{target['path']}")) / "conversion_report.json"
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{job}: no conversion Job in it", BROKEN) from None
        if path.exists():
            paths.append(path)
    return paths


def checkpoints(found: RunFolder) -> str:
    """Complete checkpoints and exports on disk."""
    rows = []
    for path in sorted([*found.run.glob("step-*"), *found.run.glob("export/*")]):
        if not (path / "manifest.json").exists():
            continue
        size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
        rows.append([cell(path.relative_to(found.run)), cell(f"{size / 2**20:,.1f} MiB", float(size)), cell(path)])
    head = [("folder", False), ("size", True), ("path", False)]
    return table(head, rows) if rows else '<p class="empty">No complete checkpoint on disk.</p>'


def configuration(found: RunFolder) -> str:
    """What the user wrote, and the conditions."""
    job = found.job()
    if not job:
        return '<p class="empty">No manifest beside this run.</p>'
    conditions = [
        [cell(c["type"]), cell(c["status"]), cell(c["reason"]), cell(c.get("message", ""))] for c in found.status().get("conditions", ())
    ]
    head = [("condition", False), ("status", False), ("reason", False), ("message", False)]
    text = escape(json.dumps(job["spec"], indent=2))
    return table(head, conditions) + f"<details><summary>spec</summary><pre>{text}</pre></details>"
