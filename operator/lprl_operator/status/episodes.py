"""PURE: what became of a step's episodes -> one line of the status."""

from lprl_api.text import one_line, shortened
from lprl_api.wire.progress import EpisodeReport

LONGEST = 600
"""Characters of that line."""


def told(report: EpisodeReport | None) -> str | None:
    """Return `3 of 64 failed, 1 aborted; 2.1 turns; tool calls: 120 ok, 4 error, 3 failed; first failures: ...`; None for single turns."""
    if report is None:
        return None
    parts = [f"{report.failed} of {report.drawn} failed" + (f", {report.aborted} aborted" if report.aborted else "")]
    parts.append(f"{report.turns:.1f} turns")
    if report.calls:
        parts.append("tool calls: " + ", ".join(f"{count} {how}" for how, count in report.calls.items()))
    if report.sandbox_wait_seconds is not None:
        parts.append(f"{report.sandbox_wait_seconds:.2g} s an episode waited for its sandbox")
    if report.failures:
        parts.append("first failures: " + "; ".join(report.failures))
    return shortened(one_line("; ".join(parts)), LONGEST)
