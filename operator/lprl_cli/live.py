"""What `lprl run` shows: a live table on a terminal, one line per change elsewhere."""

import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Protocol

from lprl_api.names import Condition
from lprl_api.text import one_line

PHASES = ("Pending", "Inspecting", "Converting", "Provisioning", "Running", "Succeeded")
SHOWN_ROWS = 12
REFRESH_SECONDS = 0.5


class View(Protocol):
    """Shows a run while it goes on."""

    def update(self, document: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
        """Show the document's status and the metric rows so far."""

    def close(self) -> None:
        """Give the terminal back."""


def printable(text: Any) -> str:
    """Return text as one line without characters that move a terminal's cursor or turn the text around; empty for None."""
    return one_line("".join(c if c.isprintable() or c == "\n" else " " for c in str("" if text is None else text)))


def number(value: Any, digits: int = 3) -> str:
    """Return a metric for people: `-` when absent, scientific when tiny."""
    if not isinstance(value, int | float):
        return "-"
    if value != 0 and abs(value) < 10**-digits:
        return f"{value:.1e}"
    return f"{value:.{digits}f}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}"


def duration(seconds: Any) -> str:
    """Return seconds as H:MM:SS, `-` when absent."""
    return "-" if not isinstance(seconds, int | float) else str(timedelta(seconds=int(seconds)))


def cells(row: Mapping[str, Any], steps: int, left: Any) -> list[str]:
    """Return a metric row as table cells: step, reward, mismatch, tokens/s, sync, time left."""
    return [
        f"{row.get('step', '?')}/{steps}",
        number(row.get("reward")),
        number(row.get("k3"), 5),
        number(row.get("logprob_diff"), 5),
        number(row.get("tokens_per_second"), 0),
        number(row.get("sync_seconds")),
        duration(left),
    ]


LAST_STEP = {"staleness": "staleness", "trainerIdle": "trainer idle", "enginesIdle": "engines idle", "lostEpisodes": "episodes lost:"}


def last_step(training: Mapping[str, Any]) -> str:
    """Return in words what status.training says of the last step besides its columns; empty when it says nothing."""
    return "; ".join(f"{words} {training[key]}" for key, words in LAST_STEP.items() if training.get(key))


COLUMNS = ("step", "reward", "mismatch k3", "|dlogp|", "tokens/s", "sync s", "time left")


def seconds_left(rows: list[dict[str, Any]], at: int, steps: int) -> float | None:
    """Return the time left after row `at`: the mean of its last ten steps times the steps to go."""
    recent = [r["step_seconds"] for r in rows[max(0, at - 9) : at + 1] if isinstance(r.get("step_seconds"), int | float)]
    return sum(recent) / len(recent) * max(0, steps - int(rows[at].get("step", 0))) if recent else None


def reward_warning(status: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return (reason, message) of the condition RewardSignal where it is False: every reward of the first steps is the same."""
    found = next((c for c in status.get("conditions") or () if c["type"] == Condition.REWARD_SIGNAL and c["status"] == "False"), None)
    return (found["reason"], f"{found['reason']}: {found.get('message', '')}") if found else None


class PlainView:
    """One line per phase change, conversion progress and step; for logs and pipes."""

    def __init__(self) -> None:
        self._phase = ""
        self._message = ""
        self._printed = 0
        self._warned = ""
        self._started = time.monotonic()

    def update(self, document: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
        """Print what is new."""
        status = document.get("status") or {}
        phase, message = printable(status.get("phase", "Pending")), printable(status.get("message"))
        if phase != self._phase or (message != self._message and phase != "Running"):
            self._say(f"{phase:<12} {message}".rstrip())
            self._phase, self._message = phase, message
        warning = reward_warning(status)
        if warning and warning[0] != self._warned:
            self._say(f"warning: {warning[1]}")
        self._warned = warning[0] if warning else ""
        steps = int(document["spec"]["algorithm"]["steps"])
        if rows and self._printed == 0:
            self._say("  ".join(f"{c:>11}" for c in COLUMNS))
        for at in range(self._printed, len(rows)):
            self._say("  ".join(f"{c:>11}" for c in cells(rows[at], steps, seconds_left(rows, at, steps))))
        self._printed = max(self._printed, len(rows))

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._started:6.1f}s] {text}", flush=True)

    def close(self) -> None:
        """Nothing to give back."""


class LiveView:
    """A table that is redrawn in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(), auto_refresh=False, transient=False)
        self._live.start()
        self._drawn = 0.0
        self._times: dict[str, float] = {}
        self._started = time.monotonic()

    def update(self, document: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
        """Redraw, at most twice a second while nothing ends."""
        phase = (document.get("status") or {}).get("phase", "Pending")
        self._times.setdefault(phase, time.monotonic() - self._started)
        if time.monotonic() - self._drawn >= REFRESH_SECONDS or phase in ("Succeeded", "Failed", "Suspended"):
            self._drawn = time.monotonic()
            self._live.update(self._render(document, rows), refresh=True)

    def _render(self, document: Mapping[str, Any], rows: list[dict[str, Any]]) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        status = document.get("status") or {}
        steps = int(document["spec"]["algorithm"]["steps"])
        head = Text(f"{document['metadata']['name']}  ", style="bold")
        head.append(f"{status.get('precision', '')}  attempt {status.get('attempt', 0)}  ", style="dim")
        head.append(duration(time.monotonic() - self._started), style="dim")
        parts: list[Any] = [head, self._phases(status.get("phase", "Pending"))]
        if status.get("message"):
            parts.append(Text(printable(status["message"]), style="dim"))
        if warning := reward_warning(status):
            parts.append(Text(f"warning: {warning[1]}", style="yellow"))
        if rows:
            table = Table(*[], box=None, pad_edge=False)
            for column in COLUMNS:
                table.add_column(column, justify="right")
            for at in range(max(0, len(rows) - SHOWN_ROWS), len(rows)):
                table.add_row(*cells(rows[at], steps, seconds_left(rows, at, steps)))
            parts.append(table)
        return Group(*parts)

    def _phases(self, phase: str) -> Any:
        from rich.text import Text

        line = Text()
        shown = [*PHASES] if phase in PHASES else [*PHASES[:-1], phase]
        for name in shown:
            done = name in self._times and name != phase
            style = "bold cyan" if name == phase else "green" if done else "dim"
            line.append(f"{'● ' if name == phase else '✓ ' if done else '○ '}{name}", style=style)
            line.append(f" {self._times[name]:.0f}s  " if name in self._times else "  ", style="dim")
        return line

    def close(self) -> None:
        """Leave the last table on the screen."""
        self._live.stop()


def make_view(plain: bool) -> View:
    """Return the table on a terminal, lines elsewhere."""
    return PlainView() if plain or not sys.stdout.isatty() else LiveView()
