"""What became of the episodes of a run whose manifest names tools or a rollout function."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from lprl_cli.report.charts import Series, legend, line_chart
from lprl_cli.report.sections import points
from lprl_cli.runfolder import RunFolder

LINES = (
    ("failed_episodes", "failed"),
    ("aborted_episodes", "aborted"),
    ("tool_calls_error", "calls the model got wrong"),
    ("tool_calls_failed", "calls that failed"),
)


def episodes_section(found: RunFolder, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return failed episodes and calls by step, and the last step in words with its first failures; empty for single turns."""
    if not any("failed_episodes" in row for row in rows):
        return ""
    told = str((found.status().get("training") or {}).get("episodes") or "")
    series = [Series(name, points(rows, key)) for key, name in LINES]
    turns = [Series("turns", points(rows, "turns_per_episode"))]
    charts = [("Episodes and calls that went wrong", legend([s.label for s in series]), series), ("Turns of an episode, mean", "", turns)]
    cards = [f"<section class=card><h3>{escape(t)}</h3>{named}{line_chart(t, lines)}</section>" for t, named, lines in charts]
    return f'<h2>Episodes</h2><p class="sub">{escape(told)}</p><div class="grid2">{"".join(cards)}</div>'
